//! Tells whoever depends on what judges that it has changed.

use std::fmt;
use std::sync::{PoisonError, RwLock};

type Act = Box<dyn Fn() + Send + Sync>;

/// The followers of something that judges, and that changes now and then.
#[derive(Default)]
pub(crate) struct Changes(RwLock<Vec<Act>>);

impl Changes {
    /// Has `act` called after each change, before whoever made it is told of success, and after
    /// those who asked earlier. It must neither wait for anything nor follow others.
    pub(crate) fn follow(&self, act: impl Fn() + Send + Sync + 'static) {
        let mut acts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        acts.push(Box::new(act));
    }

    pub(crate) fn tell(&self) {
        let acts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        acts.iter().for_each(|act| act());
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn all_followers_hear_of_each_change_in_their_order() {
        let (changes, heard) = (Changes::default(), Arc::new(Mutex::new(Vec::new())));
        for follower in [1, 2] {
            let heard = Arc::clone(&heard);
            changes.follow(move || heard.lock().unwrap().push(follower));
        }
        changes.tell();
        changes.tell();
        assert_eq!(*heard.lock().unwrap(), [1, 2, 1, 2]);
    }
}
