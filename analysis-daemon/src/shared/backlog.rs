//! Openers that wait for room in the budget of their container.
//!
//! In a group of its own a container's openers wait in the kernel's queue. Here the queue is
//! everybody's: what cannot be judged yet has to be taken out of it, or others would wait behind.

use std::collections::VecDeque;

/// Takes turns between keys, in order within a key. Bounded in all and for each key.
#[derive(Debug)]
pub(super) struct Backlog<K, T> {
    /// Each with something in it.
    lanes: VecDeque<(K, VecDeque<T>)>,
    room: usize,
    each: usize,
}

impl<K: Copy + Eq, T> Backlog<K, T> {
    pub(super) fn new((all, each): (usize, usize)) -> Self {
        Self {
            lanes: VecDeque::new(),
            room: all,
            each,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether something of this key waits: what comes later has to wait, too.
    pub(super) fn has(&self, key: K) -> bool {
        self.lanes.iter().any(|(other, _)| *other == key)
    }

    /// # Errors
    /// Gives the item back when it is one too many.
    pub(super) fn push(&mut self, key: K, item: T) -> Result<(), T> {
        let lane = self.lanes.iter().position(|(other, _)| *other == key);
        let lane = lane.and_then(|index| self.lanes.get_mut(index));
        if self.room == 0 || lane.as_ref().is_some_and(|(_, items)| items.len() >= self.each) {
            return Err(item);
        }
        self.room -= 1;
        match lane {
            Some((_, items)) => items.push_back(item),
            None => self.lanes.push_back((key, VecDeque::from([item]))),
        }
        Ok(())
    }

    /// Offers one item of each key in turn, until none is accepted any more.
    pub(super) fn offer(&mut self, mut accept: impl FnMut(T) -> Result<(), T>) {
        let mut refused = 0;
        while refused < self.lanes.len() {
            let Some((key, mut items)) = self.lanes.pop_front() else {
                return;
            };
            match items.pop_front().map(&mut accept) {
                Some(Err(item)) => {
                    items.push_front(item);
                    refused += 1;
                }
                Some(Ok(())) => {
                    self.room += 1;
                    refused = 0;
                }
                None => {}
            }
            if !items.is_empty() {
                self.lanes.push_back((key, items));
            }
        }
    }

    /// Takes out all of one key.
    pub(super) fn take(&mut self, key: K) -> VecDeque<T> {
        let lane = self.lanes.iter().position(|(other, _)| *other == key);
        let lane = lane.and_then(|index| self.lanes.remove(index));
        let items = lane.map(|(_, items)| items).unwrap_or_default();
        self.room += items.len();
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_its_own_share_and_its_own_turn() {
        let mut backlog = Backlog::new((10, 3));
        let pushed: Vec<_> = (0..5).map(|n| backlog.push('a', n)).collect();
        assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), Err(3), Err(4)]);
        backlog.push('b', 10).unwrap();
        let mut seen = Vec::new();
        backlog.offer(|item| {
            seen.push(item);
            Ok(())
        });
        assert_eq!(seen, [0, 10, 1, 2]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_is_not_accepted_stays_first() {
        let mut backlog = Backlog::new((10, 10));
        (0..3).for_each(|n| backlog.push('a', n).unwrap());
        backlog.push('b', 10).unwrap();
        backlog.offer(|item| if item < 10 { Err(item) } else { Ok(()) });
        assert!(backlog.has('a') && !backlog.has('b'));
        assert_eq!(backlog.take('a'), [0, 1, 2]);
    }

    #[test]
    fn the_bound_for_all_holds_and_is_given_back() {
        let mut backlog = Backlog::new((2, 2));
        backlog.push('a', 1).unwrap();
        backlog.push('b', 2).unwrap();
        assert_eq!(backlog.push('c', 3), Err(3));
        backlog.take('a');
        assert_eq!(backlog.push('c', 3), Ok(()));
    }
}
