//! A lock that a panic elsewhere does not turn into a second one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What our locks protect is changed in single steps, so it is whole even
/// if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
