//! Folders for checkpoints that are not kept, and those of workers that were killed.
//!
//! Each is a folder of its own with a lock beside the checkpoint, which the system lets go when its process ends: a folder whose
//! lock is free is nobody's.
//!
//! **Invariant:** a folder is taken away only under its lock.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

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
            let lock = File::create(dir.path().join(LOCK))?;
            let path = dir.path().join(CHECKPOINT);
            // Another worker that starts may take it for a dead one's until it is locked.
            if lock.try_lock().is_err() || !dir.path().join(LOCK).exists() {
                continue;
            }
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
        let Ok(lock) = File::open(dir.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            match std::fs::remove_dir_all(&dir) {
                Ok(()) => tracing::info!(dir = %dir.display(), "took away what a killed worker left"),
                Err(error) => tracing::warn!(dir = %dir.display(), %error, "can't take away what a killed worker left"),
            }
        }
    }
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
        std::fs::write(left.join(LOCK), b"").unwrap();
        for other in ["somebody's own", "fineline-checkpoint-without-a-lock"] {
            std::fs::create_dir(parent.path().join(other)).unwrap();
            std::fs::write(parent.path().join(other).join("file"), b"").unwrap();
        }
        sweep(parent.path());
        let there = |name: &str| parent.path().join(name).exists();
        assert!(!left.exists());
        assert!(there("somebody's own/file") && there("fineline-checkpoint-without-a-lock/file"));
        assert!(used.path().join("model.safetensors").exists());
        drop(used);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
    }
}
