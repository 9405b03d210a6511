//! Checkpoints that a worker keeps on its disk: for the next suite on the same one, and for an evaluation that begins again.
//!
//! Each has a folder by its digest, into which it is pulled: what is there is compared by its SHA-256 and kept, what was cut off
//! goes on, what is damaged comes anew. So a crash leaves nothing to clean up. Workers of one machine may share a cache.
//!
//! **Invariant:** a checkpoint's folder is written, read and taken away only under its lock; all folders together are counted with
//! the whole sizes of their checkpoints from before the first byte on, and stay within the budget.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use fineline_format::Digest;

const LOCK_SUFFIX: &str = ".lock";
/// Held while it is worked out what has to go.
const BUDGET_LOCK: &str = "budget.lock";

/// A folder of checkpoints with a budget.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
    max_bytes: u64,
}

/// A checkpoint's folder, which nobody else touches meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) dir: PathBuf,
    _lock: File,
}

/// What a wish for a checkpoint's folder came to.
#[derive(Debug)]
pub(crate) enum Hold {
    Held(Held),
    /// Another has it.
    InUse,
    /// It is larger than the budget, or the others are in use.
    NoRoom,
}

/// A checkpoint that is there, whole or not.
struct Kept {
    dir: PathBuf,
    lock: PathBuf,
    size_bytes: u64,
    used_at: SystemTime,
}

impl Cache {
    /// A cache in `dir`, which is made when it is missing, of at most so many bytes.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cache `{}`", dir.display()))?;
        let dir = dir.to_owned();
        Ok(Self { dir, max_bytes })
    }

    /// The folder for a checkpoint of so many bytes, once those that were not used for the longest have made room. Blocking.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn hold(&self, digest: Digest, size_bytes: u64) -> Result<Hold> {
        let dir = self.dir.join(digest.to_hex());
        let failed = || format!("cache `{}`", self.dir.display());
        let mut lock = lock_file(&with_suffix(&dir)).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Hold::InUse),
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        let budget = lock_file(&self.dir.join(BUDGET_LOCK)).with_context(failed)?;
        budget.lock().with_context(failed)?;
        if !self.make_room(&dir, size_bytes).with_context(failed)? {
            return Ok(Hold::NoRoom);
        }
        // The size counts before the folder is there.
        lock.set_len(0).with_context(failed)?;
        lock.rewind().with_context(failed)?;
        lock.write_all(size_bytes.to_string().as_bytes()).with_context(failed)?;
        std::fs::create_dir_all(&dir).with_context(failed)?;
        Ok(Hold::Held(Held { dir, _lock: lock }))
    }

    /// Takes others away until there is room for so many bytes in `dir`; whether there is.
    fn make_room(&self, dir: &Path, size_bytes: u64) -> std::io::Result<bool> {
        let mut others = self.kept()?;
        others.retain(|kept| kept.dir != dir);
        others.sort_by_key(|kept| kept.used_at);
        let mut total = size_bytes + others.iter().map(|kept| kept.size_bytes).sum::<u64>();
        for kept in others {
            if total <= self.max_bytes || size_bytes > self.max_bytes {
                break;
            }
            let lock = lock_file(&kept.lock)?;
            if lock.try_lock().is_ok() {
                std::fs::remove_dir_all(&kept.dir)?;
                total -= kept.size_bytes;
            }
        }
        Ok(total <= self.max_bytes)
    }

    fn kept(&self) -> std::io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let dir = entry?.path();
            let lock = with_suffix(&dir);
            // What is no checkpoint of the cache is not the cache's to count or to take away.
            if !dir.is_dir() || !lock.is_file() {
                continue;
            }
            let mut size = String::new();
            let mut file = File::open(&lock)?;
            file.read_to_string(&mut size)?;
            all.push(Kept {
                used_at: file.metadata()?.modified()?,
                // A machine that went down may have lost the size, and what it is of counts as nothing and goes when it is old.
                size_bytes: size.parse().unwrap_or(0),
                dir,
                lock,
            });
        }
        Ok(all)
    }
}

impl Held {
    /// Shows the checkpoint's files in `to`, where others may stand beside them.
    ///
    /// # Errors
    /// When a link can't be made.
    pub(crate) fn show_in(&self, to: &Path) -> Result<()> {
        show(&self.dir, to).with_context(|| format!("links to `{}`", self.dir.display()))
    }
}

fn show(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (std::path::absolute(entry.path())?, to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&to)?;
            show(&from, &to)?;
        } else {
            std::os::unix::fs::symlink(from, to)?;
        }
    }
    Ok(())
}

fn with_suffix(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    PathBuf::from(name)
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn held(cache: &Cache, n: u8, size_bytes: u64) -> Held {
        match cache.hold(digest(n), size_bytes).unwrap() {
            Hold::Held(held) => held,
            other => panic!("{other:?}"),
        }
    }

    /// Holds a checkpoint, writes its file and lets it go.
    fn keep(cache: &Cache, n: u8, size_bytes: u64) {
        let held = held(cache, n, size_bytes);
        std::fs::write(held.dir.join("model.safetensors"), vec![n; 10]).unwrap();
    }

    fn is_there(cache: &Cache, n: u8) -> bool {
        cache.dir.join(digest(n).to_hex()).join("model.safetensors").exists()
    }

    #[test]
    fn those_that_were_not_used_for_the_longest_make_room_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("somebody's own")).unwrap();
        let cache = Cache::open(dir.path(), 100).unwrap();
        for n in 1..=3 {
            keep(&cache, n, 30);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        keep(&cache, 1, 30);
        keep(&cache, 4, 40);
        assert_eq!([1, 2, 3, 4].map(|n| is_there(&cache, n)), [true, false, true, true]);
        // Two are in use, of which a second process does not take either.
        let in_use = [1, 3].map(|n| held(&cache, n, 30));
        let another = Cache::open(dir.path(), 100).unwrap();
        assert!(matches!(another.hold(digest(1), 30).unwrap(), Hold::InUse));
        assert!(matches!(another.hold(digest(5), 50).unwrap(), Hold::NoRoom));
        assert!(matches!(another.hold(digest(6), 40).unwrap(), Hold::Held(_)));
        assert_eq!([1, 3, 4].map(|n| is_there(&cache, n)), [true, true, false]);
        drop(in_use);
        assert!(
            matches!(cache.hold(digest(7), 101).unwrap(), Hold::NoRoom),
            "larger than the budget"
        );
        assert_eq!(
            [1, 3].map(|n| is_there(&cache, n)),
            [true, true],
            "nothing went in vain"
        );
        assert!(dir.path().join("somebody's own").is_dir());
    }

    #[test]
    fn what_a_crash_left_counts_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 100).unwrap();
        let first = held(&cache, 1, 60);
        std::fs::write(first.dir.join("model.safetensors.fineline-partial"), b"half").unwrap();
        drop(first);
        let cache = Cache::open(dir.path(), 100).unwrap();
        let again = held(&cache, 1, 60);
        assert!(again.dir.join("model.safetensors.fineline-partial").exists());
        drop(again);
        assert_eq!(
            cache.kept().unwrap().iter().map(|kept| kept.size_bytes).sum::<u64>(),
            60
        );
        keep(&cache, 2, 50);
        assert_eq!(cache.kept().unwrap().len(), 1, "the half one made room");
    }

    #[test]
    fn files_are_shown_where_others_may_stand_beside_them() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let held = held(&Cache::open(dir.path(), 100).unwrap(), 1, 10);
        std::fs::create_dir(held.dir.join("sub")).unwrap();
        for name in ["a", "sub/b"] {
            std::fs::write(held.dir.join(name), name).unwrap();
        }
        held.show_in(to.path()).unwrap();
        std::fs::remove_file(to.path().join("a")).unwrap();
        std::fs::write(to.path().join("a"), "lent").unwrap();
        assert_eq!(std::fs::read_to_string(held.dir.join("a")).unwrap(), "a");
        assert_eq!(std::fs::read_to_string(to.path().join("sub/b")).unwrap(), "sub/b");
    }
}
