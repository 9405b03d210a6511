//! The tokenizer that a run lends to a checkpoint without one of its own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fineline_api::Lease;
use fineline_client::Client;
use fineline_format::Digest;
use fineline_format::evaluable::TOKENIZER_FILES;

/// Puts the tokenizer that the lease lends beside the checkpoint's files in `dir`, in place of what is there of one.
/// Nothing happens when the checkpoint has its own.
///
/// # Errors
/// When a file can't be had, comes with other bytes, or can't be written.
pub(crate) async fn fetch_tokenizer(client: &Client, lease: &Lease, dir: &Path) -> Result<()> {
    if lease.tokenizer.is_empty() {
        return Ok(());
    }
    // Half a tokenizer of the checkpoint's own is no part of the model that the lease names.
    for name in TOKENIZER_FILES {
        if dir.join(name).exists() {
            std::fs::remove_file(dir.join(name)).with_context(|| format!("can't take `{name}` away"))?;
        }
    }
    for file in &lease.tokenizer {
        let path = file.path.as_str();
        ensure!(TOKENIZER_FILES.contains(&path), "`{path}` is no file of a tokenizer");
        let bytes = client.get_tokenizer_file(lease.evaluation.id, path).await?;
        ensure!(
            Digest::of(&bytes) == file.digest,
            "tokenizer file `{path}` came with other bytes"
        );
        std::fs::write(dir.join(path), bytes).with_context(|| format!("can't write `{path}`"))?;
    }
    Ok(())
}
