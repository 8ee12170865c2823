//! What unpacking one file may cost.

use std::io::Read;
use std::time::Instant;

use lazaret_api::scan::v1::Limit;

/// Unpacked at once, in bytes; the time is looked at in between.
const CHUNK: u64 = 64 << 10;

/// Below this, in bytes, a content may unpack to any multiple of its size: text does, and
/// it harms nobody.
const HARMLESS: usize = 8 << 20;

/// Each depth takes some of the stack.
const DEEPEST: u32 = 64;

/// What bounds the unpacking of one file.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Archives inside each other.
    pub depth: u32,
    /// Members, all depths together.
    pub members: u32,
    /// Bytes, all members together.
    pub size: u64,
    /// Unpacked by packed size of a member.
    pub ratio: u32,
    /// When to stop.
    pub deadline: Instant,
}

/// What is left of the [`Limits`].
#[derive(Debug)]
pub struct Budget {
    left: Limits,
    reached: Option<Limit>,
}

/// Nothing more can be read of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

impl Budget {
    /// All of it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            left: limits,
            reached: None,
        }
    }

    /// The first limit that kept something from being read; or that time ran out, because then
    /// another try may see more.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.reached
    }

    /// Whether an archive may be opened at that depth. What lies beside it can still be read.
    pub(super) fn allows_depth(&mut self, depth: u32) -> bool {
        let allowed = depth <= self.left.depth.min(DEEPEST);
        if !allowed {
            self.reach(Limit::Depth);
        }
        allowed
    }

    pub(super) fn begin_member(&mut self) -> Result<(), Spent> {
        self.check_time()?;
        match self.left.members.checked_sub(1) {
            Some(left) => self.left.members = left,
            None => return Err(self.reach(Limit::Members)),
        }
        Ok(())
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Spent> {
        match self.left.size.checked_sub(bytes as u64) {
            Some(left) => self.left.size = left,
            None => return Err(self.reach(Limit::Size)),
        }
        Ok(())
    }

    /// Reads as much as there is and as the budget allows. An error of the reader is the end:
    /// what came before it is what anybody could read.
    pub(super) fn unpack(&mut self, packed: usize, mut reader: impl Read) -> (Vec<u8>, Result<(), Spent>) {
        let mut content = Vec::new();
        loop {
            if let Err(spent) = self.check_time() {
                return (content, Err(spent));
            }
            if self.is_bomb(packed, content.len()) {
                self.reach(Limit::Ratio);
                return (content, Ok(()));
            }
            let before = content.len();
            let chunk = CHUNK.min(self.left.size + 1);
            if content
                .try_reserve(usize::try_from(chunk).unwrap_or(usize::MAX))
                .is_err()
            {
                return (content, Err(self.reach(Limit::Size)));
            }
            let read = reader.by_ref().take(chunk).read_to_end(&mut content);
            if let Err(spent) = self.take(content.len() - before) {
                return (content, Err(spent));
            }
            match read {
                // A window that is larger than we allow: not corrupt, but not read.
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
                    return (content, Err(self.reach(Limit::Size)));
                }
                Ok(0) | Err(_) => return (content, Ok(())),
                Ok(_) => {}
            }
        }
    }

    fn is_bomb(&self, packed: usize, unpacked: usize) -> bool {
        let ratio = usize::try_from(self.left.ratio).unwrap_or(usize::MAX);
        unpacked > HARMLESS && unpacked > packed.saturating_mul(ratio)
    }

    fn check_time(&mut self) -> Result<(), Spent> {
        if Instant::now() > self.left.deadline {
            return Err(self.reach(Limit::Time));
        }
        Ok(())
    }

    fn reach(&mut self, limit: Limit) -> Spent {
        if limit == Limit::Time {
            self.reached = Some(limit);
        }
        self.reached.get_or_insert(limit);
        Spent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn that_time_ran_out_outweighs_what_came_before() {
        let mut budget = Budget::new(Limits {
            depth: 1,
            members: 1,
            size: 1,
            ratio: 1,
            deadline: Instant::now() + Duration::from_secs(600),
        });
        assert!(!budget.allows_depth(2));
        assert!(budget.take(2).is_err());
        assert_eq!(budget.limit(), Some(Limit::Depth), "the first one");
        budget.left.deadline = Instant::now() - Duration::from_millis(1);
        assert!(budget.begin_member().is_err());
        assert_eq!(budget.limit(), Some(Limit::Time));
    }
}
