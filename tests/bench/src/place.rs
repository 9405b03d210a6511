//! A folder that is gone when it is no longer needed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder of its own; what is in it is taken away with it.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// Makes the folder anew.
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let dir = parent.join(format!("fineline-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("folder `{}`", dir.display()))?;
        Ok(Self(dir))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
