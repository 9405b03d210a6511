//! Folders for checkpoints that are not kept, and those of workers that were killed.
//!
//! Each is a folder of its own with a lock beside the checkpoint, which the system lets go when its process ends: a folder of this
//! machine whose lock is free is nobody's. Where a disk knows no locks nothing is taken away.
//!
//! **Invariant:** a folder is taken away only under its lock, and the lock last.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::worker::host;

const PREFIX: &str = "fineline-checkpoint-";
const LOCK: &str = "lock";
const CHECKPOINT: &str = "checkpoint";

/// A folder for a checkpoint, which goes when this does.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    // Taken away before its lock is free.
    _dir: TempDir,
    _lock: File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be taken away now is tried again with its folder, and by the next worker.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Scratch {
    /// A new folder in `parent`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        Self::make(parent).with_context(|| format!("a folder for the checkpoint in `{}`", parent.display()))
    }

    fn make(parent: &Path) -> std::io::Result<Self> {
        loop {
            let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            let mut lock = File::create(dir.path().join(LOCK))?;
            let path = dir.path().join(CHECKPOINT);
            // Another worker that starts may take it for a dead one's until it is locked.
            if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) || !dir.path().join(LOCK).exists() {
                continue;
            }
            lock.write_all(host().as_bytes())?;
            std::fs::create_dir(&path)?;
            return Ok(Self {
                path,
                _dir: dir,
                _lock: lock,
            });
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes away the folders in `parent` that killed workers left. What can't be taken away stays.
pub(crate) fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let dir = entry.path();
        // Another machine's locks may not show here.
        let is_of_here = std::fs::read_to_string(dir.join(LOCK)).is_ok_and(|of| of == host());
        let Some(lock) = is_of_here.then(|| File::open(dir.join(LOCK)).ok()).flatten() else {
            continue;
        };
        if lock.try_lock().is_ok() {
            match take_away(&dir) {
                Ok(()) => tracing::info!(dir = %dir.display(), "took away what a killed worker left"),
                Err(error) => tracing::warn!(dir = %dir.display(), %error, "can't take away what a killed worker left"),
            }
        }
    }
}

fn take_away(dir: &Path) -> std::io::Result<()> {
    let checkpoint = dir.join(CHECKPOINT);
    if checkpoint.exists() {
        std::fs::remove_dir_all(checkpoint)?;
    }
    std::fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_worker_left_goes_and_what_one_uses_stays() {
        let parent = tempfile::tempdir().unwrap();
        let used = Scratch::new(parent.path()).unwrap();
        std::fs::write(used.path().join("model.safetensors"), b"weights").unwrap();
        let left = parent.path().join(format!("{PREFIX}left"));
        std::fs::create_dir_all(left.join(CHECKPOINT)).unwrap();
        std::fs::write(left.join(LOCK), host()).unwrap();
        let elsewhere = parent.path().join(format!("{PREFIX}of-another-machine"));
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join(LOCK), b"elsewhere").unwrap();
        for other in ["somebody's own", "fineline-checkpoint-without-a-lock"] {
            std::fs::create_dir(parent.path().join(other)).unwrap();
            std::fs::write(parent.path().join(other).join("file"), b"").unwrap();
        }
        sweep(parent.path());
        let there = |name: &str| parent.path().join(name).exists();
        assert!(!left.exists() && elsewhere.exists());
        assert!(there("somebody's own/file") && there("fineline-checkpoint-without-a-lock/file"));
        assert!(used.path().join("model.safetensors").exists());
        drop(used);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
