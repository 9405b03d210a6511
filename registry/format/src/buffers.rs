//! Memory of chunks and frames that is used again. A fresh piece of 16 MiB costs the system as much time as its SHA-256.
//!
//! **Invariant:** what is in use and what waits to be used again are bounded together; what is in use alone is its holders' to
//! bound.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::MAX_CHUNK_BYTES;

/// Less than this is as quickly had from the allocator, and not worth a place.
const MIN_BYTES: usize = 256 << 10;

/// More than this is no chunk or frame, and is given back.
const MAX_KEPT_BYTES: usize = MAX_CHUNK_BYTES + MAX_CHUNK_BYTES / 8;

/// From this size on a freed piece of memory goes back to the system at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETURNED_BYTES: libc::c_int = 1 << 20;

/// Has the allocator give large pieces back when they are freed; for the start of a process. glibc takes the first that is freed as
/// a reason to keep its like, between others that stay, and a process that moves chunks grows to twice what it uses.
pub fn return_large_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a function of the C library")]
    // SAFETY: it takes two numbers, by the library's own lock. When it refuses, memory is held as before.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES);
    }
}

/// A place for buffers that nobody uses now; clones share it.
#[derive(Clone)]
pub struct Buffers {
    place: Arc<Mutex<Place>>,
    max_bytes: usize,
}

#[derive(Default)]
struct Place {
    /// The oldest first.
    idle: Vec<Vec<u8>>,
    used_bytes: usize,
}

/// Bytes that go back to their place when they are dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    /// What it counts for in its place.
    used_bytes: usize,
    home: Buffers,
}

impl Buffers {
    /// A place for so many of the largest buffers, those in use among them.
    pub fn new(n_largest: usize) -> Self {
        Self {
            place: Arc::default(),
            max_bytes: n_largest * MAX_KEPT_BYTES,
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
        let room = room(capacity);
        if !is_kept(room) {
            return Buffer {
                bytes: Vec::with_capacity(room),
                used_bytes: 0,
                home: self.clone(),
            };
        }
        let mut place = self.place();
        let (found, superfluous) = match place.find(capacity) {
            Some(found) => (Some(found), Vec::new()),
            None => (None, place.clear(room, self.max_bytes)),
        };
        let used_bytes = found.as_ref().map_or(room, Vec::capacity);
        place.used_bytes += used_bytes;
        drop(place);
        // Before memory is asked for, and while nobody waits.
        drop(superfluous);
        Buffer {
            bytes: found.unwrap_or_else(|| Vec::with_capacity(room)),
            used_bytes,
            home: self.clone(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes one that need not grow, and of which the most would not lie unused: who bounds bytes bounds memory.
    fn find(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let fits = |bytes: &Vec<u8>| (capacity..=2 * capacity).contains(&bytes.capacity());
        let at = self.idle.iter().position(fits)?;
        Some(self.idle.swap_remove(at))
    }

    /// Takes out the oldest, so that there is room for so many bytes if there can be: the newest stay, and those of a size that
    /// nobody asks for any more go.
    fn clear(&mut self, bytes: usize, max_bytes: usize) -> Vec<Vec<u8>> {
        let mut idle_bytes: usize = self.idle.iter().map(Vec::capacity).sum();
        let mut n = 0;
        while n < self.idle.len() && self.used_bytes + idle_bytes + bytes > max_bytes {
            idle_bytes -= self.idle[n].capacity();
            n += 1;
        }
        self.idle.drain(..n).collect()
    }
}

fn is_kept(bytes: usize) -> bool {
    (MIN_BYTES..=MAX_KEPT_BYTES).contains(&bytes)
}

/// The room that is made for so many bytes: a power of two, and an eighth for what surrounds a chunk that does not get smaller. So
/// a chunk fits where a frame was and the other way round: else memory grows by those that come together by chance.
fn room(bytes: usize) -> usize {
    if !is_kept(bytes) {
        return bytes;
    }
    let power = (bytes - bytes / 9).next_power_of_two();
    power + power / 8
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if self.used_bytes == 0 && !is_kept(bytes.capacity()) {
            return;
        }
        let max_bytes = self.home.max_bytes;
        let mut place = self.home.place();
        place.used_bytes -= self.used_bytes;
        if !is_kept(bytes.capacity()) || place.used_bytes + bytes.capacity() > max_bytes {
            return;
        }
        let superfluous = place.clear(bytes.capacity(), max_bytes);
        place.idle.push(bytes);
        drop(place);
        drop(superfluous);
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
        let before = buffers.filled(MIN_BYTES);
        let address = before.as_ptr();
        drop(before);
        let again = buffers.empty(MIN_BYTES);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        drop(again);
        drop(buffers.filled(10));
        assert_eq!(buffers.place().idle.len(), 1);
        assert_eq!(buffers.filled(MIN_BYTES + 1).len(), MIN_BYTES + 1);
    }

    #[test]
    fn a_chunk_fits_where_its_frame_was() {
        let buffers = Buffers::new(1);
        for (small, large) in [
            (10 << 20, (10 << 20) + 9000),
            (10 << 20, 1 << 24),
            (1 << 24, (1 << 24) + 16),
        ] {
            let before = buffers.filled(small);
            let address = before.as_ptr();
            drop(before);
            assert_eq!(buffers.empty(large).as_ptr(), address, "{large}");
        }
    }

    #[test]
    fn what_is_used_and_what_waits_are_bounded_together() {
        let buffers = Buffers::new(6);
        let held = |buffers: &Buffers| {
            let place = buffers.place();
            place.used_bytes + place.idle.iter().map(Vec::capacity).sum::<usize>()
        };
        for _ in 0..3 {
            // Sizes of which none fits where another was.
            for (n, size) in [(6, 16 << 20), (90, 1 << 20), (24, 4 << 20), (300, 256 << 10)] {
                let used: Vec<Buffer> = (0..n).map(|_| buffers.filled(size)).collect();
                assert!(held(&buffers) <= 6 * MAX_KEPT_BYTES, "{n} of {size}");
                assert!(used.iter().map(|buffer| buffer.bytes.capacity()).sum::<usize>() <= 2 * n * size);
                drop(used);
                assert!(held(&buffers) <= 6 * MAX_KEPT_BYTES, "{n} of {size}");
            }
        }
        // More than that is its holders' to bound, and nothing waits beside it.
        let used: Vec<Buffer> = (0..7).map(|_| buffers.filled(16 << 20)).collect();
        assert_eq!(held(&buffers), 7 * MAX_KEPT_BYTES);
        drop((used, buffers.filled(64 << 20)));
        assert_eq!(held(&buffers), 6 * MAX_KEPT_BYTES);
    }
}
