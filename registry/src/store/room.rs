//! How much room a folder's file system has. Some of it is kept back, so that deleting, which writes to the database
//! first, is possible when the rest is full.

use std::path::Path;

use rustix::fs::Access;

use super::StoreError;

/// Kept back: a twentieth of the file system, within these bounds.
const MIN_RESERVE_BYTES: u64 = 16 << 20;
const MAX_RESERVE_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, Copy)]
struct Room {
    free_bytes: u64,
    total_bytes: u64,
}

impl Room {
    fn of(dir: &Path) -> std::io::Result<Self> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn reserve_bytes(self) -> u64 {
        (self.total_bytes / 20).clamp(MIN_RESERVE_BYTES, MAX_RESERVE_BYTES)
    }
}

/// Refuses what would not leave the reserve free.
pub(super) fn check(dir: &Path, n_bytes: u64) -> Result<(), StoreError> {
    let room = Room::of(dir).map_err(|error| StoreError::Other(format!("the store's file system: {error}")))?;
    if room.free_bytes >= n_bytes.saturating_add(room.reserve_bytes()) {
        return Ok(());
    }
    Err(StoreError::Full(format!(
        "{n_bytes} bytes more do not fit: {}",
        say(room)
    )))
}

/// Whether the folder is there, may be written to and has room.
pub(super) fn probe(dir: &Path) -> Result<(), StoreError> {
    if !dir.is_dir() {
        return Err(StoreError::Missing(dir.display().to_string()));
    }
    let writable = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK);
    writable.map_err(|error| StoreError::Other(format!("folder `{}`: {error}", dir.display())))?;
    check(dir, 0)
}

/// The numbers, for an error that a write met.
pub(super) fn describe(dir: &Path) -> String {
    Room::of(dir).map_or_else(|error| error.to_string(), say)
}

fn say(room: Room) -> String {
    format!(
        "{} of {} bytes are free, {} of them are kept back for deleting",
        room.free_bytes,
        room.total_bytes,
        room.reserve_bytes()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_fit_is_refused_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 0).unwrap();
        let refused = check(dir.path(), 1 << 60).unwrap_err();
        let room = Room::of(dir.path()).unwrap();
        let text = refused.to_string();
        assert!(
            matches!(refused, StoreError::Full(_)) && text.contains(&room.total_bytes.to_string()),
            "{text}"
        );
    }

    #[test]
    fn the_reserve_is_a_twentieth_within_bounds() {
        let reserve = |total_bytes| {
            Room {
                free_bytes: 0,
                total_bytes,
            }
            .reserve_bytes()
        };
        assert_eq!(reserve(100 << 20), 16 << 20);
        assert_eq!(reserve(2 << 30), (2 << 30) / 20);
        assert_eq!(reserve(1 << 42), 1 << 30);
    }
}
