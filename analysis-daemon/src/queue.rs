//! The queue of openers, fair between containers.
//!
//! A container that opens ten thousand files at once waits for its own turn; it
//! does not make others wait for ten thousand.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};

/// What one thread takes of a key's items is at most this part of them: the other
/// threads shall have some.
const SHARE: usize = 4;

/// And at most this many.
const MAX_TOGETHER: usize = 16;

/// Takes from each key in turn, in order within a key. How much can be in it is
/// bounded by who puts things in.
#[derive(Debug)]
pub(crate) struct FairQueue<K, T> {
    lanes: Mutex<Lanes<K, T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Lanes<K, T> {
    items: HashMap<K, VecDeque<T>>,
    /// The keys that have items, each once.
    turn: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, T> FairQueue<K, T> {
    pub(crate) fn new() -> Self {
        let lanes = Lanes {
            items: HashMap::new(),
            turn: VecDeque::new(),
        };
        Self {
            lanes: Mutex::new(lanes),
            filled: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, key: K, item: T) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.items.entry(key).or_default();
        lane.push_back(item);
        if lane.len() == 1 {
            lanes.turn.push_back(key);
        }
        drop(lanes);
        self.filled.notify_one();
    }

    /// Waits for items of one key: one, or in a flood some of those that wait.
    pub(crate) fn pop(&self) -> Vec<T> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(items) = lanes.next() {
                return items;
            }
            lanes = self.filled.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<K: Copy + Eq + Hash, T> Lanes<K, T> {
    fn next(&mut self) -> Option<Vec<T>> {
        let key = self.turn.pop_front()?;
        let lane = self.items.get_mut(&key)?;
        let count = (lane.len() / SHARE).clamp(1, MAX_TOGETHER);
        let items = lane.drain(..count.min(lane.len())).collect();
        if lane.is_empty() {
            self.items.remove(&key);
        } else {
            self.turn.push_back(key);
        }
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_does_not_hold_up_others() {
        let queue = FairQueue::new();
        (0..1000).for_each(|n| queue.push('a', n));
        queue.push('b', -1);
        queue.push('b', -2);
        assert_eq!(queue.pop(), (0..16).collect::<Vec<_>>());
        assert_eq!(queue.pop(), [-1]);
        assert_eq!(queue.pop(), (16..32).collect::<Vec<_>>());
        assert_eq!(queue.pop(), [-2]);
    }

    #[test]
    fn a_few_are_shared_among_the_threads() {
        let queue = FairQueue::new();
        (0..5).for_each(|n| queue.push((), n));
        let taken: Vec<_> = (0..5).map(|_| queue.pop()).collect();
        assert_eq!(taken, [[0], [1], [2], [3], [4]]);
    }
}
