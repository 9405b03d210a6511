//! Memory of chunks and frames that is used again. A fresh piece of 16 MiB costs the system as much time as its SHA-256.
//!
//! **Invariant:** what waits to be used again is bounded; what is in use is its holders' to bound.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Less than this is as quickly had from the allocator, and not worth a place.
const MIN_BYTES: usize = 256 << 10;

/// More than this is no chunk or frame, and is given back.
const MAX_KEPT_BYTES: usize = 18 << 20;

/// The part of the next power of two that a buffer's room is a multiple of. Frames of chunks of one size differ by some kilobytes,
/// and each is to fit where another was: else memory grows by those that come together by chance.
const ROOM_PART: usize = 16;

/// A place for buffers that nobody uses now; clones share it.
#[derive(Clone)]
pub struct Buffers {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    max_idle: usize,
}

/// Bytes that go back to their place when they are dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A place for so many.
    pub fn new(max_idle: usize) -> Self {
        Self {
            idle: Arc::default(),
            max_idle,
        }
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn empty(&self, capacity: usize) -> Buffer {
        let mut buffer = self.take(capacity);
        buffer.clear();
        buffer
    }

    /// A buffer of `n` bytes that hold anything, to be written over.
    pub fn filled(&self, n: usize) -> Buffer {
        let mut buffer = self.take(n);
        // Not emptied first: what is there already need not be zeroed.
        buffer.resize(n, 0);
        buffer
    }

    fn take(&self, capacity: usize) -> Buffer {
        let capacity = match capacity {
            MIN_BYTES..=MAX_KEPT_BYTES => capacity.next_multiple_of(capacity.next_power_of_two() / ROOM_PART),
            _ => capacity,
        };
        let fitting = match capacity {
            MIN_BYTES.. => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                // Neither one that would grow nor one of which the most would lie idle: who bounds bytes bounds memory.
                let fits = |bytes: &Vec<u8>| (capacity..=2 * capacity).contains(&bytes.capacity());
                idle.iter().position(fits).map(|at| idle.swap_remove(at))
            }
            _ => None,
        };
        Buffer {
            bytes: fitting.unwrap_or_else(|| Vec::with_capacity(capacity)),
            home: self.clone(),
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers")
            .field("max_idle", &self.max_idle)
            .finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !(MIN_BYTES..=MAX_KEPT_BYTES).contains(&self.bytes.capacity()) {
            return;
        }
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest stay, so that those of a size that nobody asks for any more make room.
        if idle.len() == self.home.max_idle && !idle.is_empty() {
            idle.remove(0);
        }
        if idle.len() < self.home.max_idle {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_used_again_and_small_ones_are_not_kept() {
        let buffers = Buffers::new(1);
        let (first, second) = (buffers.filled(MIN_BYTES), buffers.filled(MIN_BYTES));
        let address = second.as_ptr();
        drop((first, second));
        assert_eq!(buffers.idle.lock().unwrap().len(), 1, "no more than there is place for");
        let again = buffers.empty(MIN_BYTES);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        drop(again);
        drop(buffers.filled(10));
        assert_eq!(buffers.idle.lock().unwrap().len(), 1);
        assert_eq!(buffers.filled(MIN_BYTES + 1).len(), MIN_BYTES + 1);
    }

    #[test]
    fn a_frame_fits_where_one_of_nearly_its_size_was() {
        let buffers = Buffers::new(1);
        for (small, large) in [
            (10 << 20, (10 << 20) + 9000),
            (0x00fe_0000, 1 << 24),
            ((1 << 24) + 1, (1 << 24) + 16),
        ] {
            let before = buffers.filled(small + 1);
            let address = before.as_ptr();
            drop(before);
            assert_eq!(buffers.empty(large).as_ptr(), address, "{large}");
        }
    }

    #[test]
    fn memory_is_bounded_by_what_was_asked_for_whatever_sizes_come_together() {
        let buffers = Buffers::new(6);
        for _ in 0..20 {
            let large: Vec<Buffer> = (0..4).map(|_| buffers.filled(16 << 20)).collect();
            drop(large);
            let small: Vec<Buffer> = (0..40).map(|_| buffers.filled(300 << 10)).collect();
            let held: usize = small.iter().map(|buffer| buffer.bytes.capacity()).sum();
            assert!(held <= 2 * 40 * (300 << 10), "{held}");
        }
        drop(buffers.filled(64 << 20));
        let kept = buffers.idle.lock().unwrap().iter().map(Vec::capacity).max();
        assert!(kept <= Some(MAX_KEPT_BYTES), "{kept:?}");
    }
}
