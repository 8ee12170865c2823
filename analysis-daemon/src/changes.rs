//! Tells who keeps verdicts that others are due.

use std::fmt;
use std::sync::OnceLock;

/// Something that judges, and that changes now and then.
#[derive(Default)]
pub(crate) struct Changes(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Changes {
    /// Has `act` called after each change, before whoever made it is told of success. Only the
    /// first who asks is called.
    pub(crate) fn follow(&self, act: impl Fn() + Send + Sync + 'static) {
        // Set by who puts the daemon together, once.
        let _second = self.0.set(Box::new(act));
    }

    pub(crate) fn tell(&self) {
        if let Some(act) = self.0.get() {
            act();
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}
