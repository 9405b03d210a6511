//! Pulling a checkpoint into a folder: byte for byte, or its weights as safetensors.
//!
//! What is there already with the right digest is kept; what was interrupted goes on. How one file is put together
//! stands in `partial`, how weights become safetensors in `convert`.
//!
//! **Invariant:** a file bears its name only once its SHA-256, or the weights digest, was compared; nothing is written
//! outside of the folder, and nothing any more once a pull has returned, well or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fineline_api::{CheckpointFile, Reference, RunName};
use fineline_format::frame::Decoder;
use fineline_format::{Digest, FileEntry, Manifest};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Mutex, RwLock, Semaphore};

use crate::blocking::{Tools, blocking};
use crate::checkpoint::ready_digest;
use crate::convert;
use crate::direct::DirectPull;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::partial::{self, Existing};
use crate::progress::{Meter, Phase, Progress};

/// Raw bytes of chunks in flight at once, over all files: asked for, received, written, or waiting for their turn to be
/// hashed. There may be a frame beside each.
const HELD_BYTES: usize = 64 << 20;
pub(crate) const N_FILES_AT_ONCE: usize = 4;

/// How a pull meets what is there, and what it leaves there.
#[derive(Debug, Clone, Copy, Default)]
pub struct PullOptions {
    /// Whether files that are there with other content are replaced; else they are an error.
    pub overwrite: bool,
    /// The form in which the weights are wanted.
    pub weights: WeightsForm,
}

/// The form in which a pull writes a checkpoint's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsForm {
    /// As they are stored, byte for byte.
    #[default]
    Stored,
    /// As safetensors: PyTorch's files are written as `model.safetensors`, or as `model-00001-of-0000N.safetensors`
    /// and `model.safetensors.index.json`, while they come in. Safetensors and all other files are left as they are.
    /// Tensors that share a storage become copies. The weights digest stays the same, and is compared before one gets
    /// its name.
    Safetensors,
}

impl std::str::FromStr for WeightsForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stored" => Ok(Self::Stored),
            "safetensors" => Ok(Self::Safetensors),
            _ => Err("write `safetensors` or `stored`".to_owned()),
        }
    }
}

/// What a pull did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PullOutcome {
    /// The step that the reference meant.
    pub step: u64,
    /// The checkpoint's digest.
    pub digest: Digest,
    /// Files of the checkpoint, as they are in the folder now.
    pub n_files: u64,
    /// Bytes of all of them.
    pub size_bytes: u64,
    /// Those of the files that were made of others: weights as safetensors, and their index.
    pub n_converted_files: u64,
    /// Bytes of files and pieces that were there already.
    pub kept_bytes: u64,
    /// Bytes of the frames that were received.
    pub received_bytes: u64,
    /// Those of them that came straight from the registry's bucket.
    pub direct_bytes: u64,
}

/// What the tasks of one pull share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) run: RunName,
    pub(crate) direct: DirectPull,
    pub(crate) held: Arc<Semaphore>,
    /// Locked by the one that gathers values in memory.
    pub(crate) gathering: Mutex<()>,
    pub(crate) decoders: Tools<Decoder>,
    /// Read-locked by whatever works on a file.
    pub(crate) working: Arc<RwLock<()>>,
    pub(crate) meter: Meter,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) kept_bytes: AtomicU64,
}

/// Pulls the files of a checkpoint into `dir`, which is made when it is missing; other files in it stay.
///
/// # Errors
/// [`Error::NotFound`] when the run has no such checkpoint, [`Error::Folder`] when something else is in the way,
/// [`Error::NotConvertible`] when the weights can't be had in the form that is asked for, [`Error::Corrupt`] when what
/// the registry sends is not what its digests name, and what every call may give.
pub async fn pull(
    client: &Client,
    run: &RunName,
    reference: &Reference,
    dir: &Path,
    options: &PullOptions,
    progress: impl Fn(&Progress) + Send + Sync + 'static,
) -> Result<PullOutcome> {
    let checkpoint = client.get_checkpoint(run, reference).await?;
    let digest = ready_digest(&checkpoint)?;
    // From here on by digest: a tag or a step may come to mean another checkpoint meanwhile.
    let mut files = client.list_files(run, &Reference::Digest(digest), true).await?;
    let manifest = check_manifest(&files, digest)?;
    let conversion = match options.weights {
        WeightsForm::Stored => None,
        WeightsForm::Safetensors => convert::plan(client, run, &checkpoint, &manifest, &files).await?,
    };
    if let Some(conversion) = &conversion {
        files.retain(|file| !conversion.replaces(&file.path));
    }
    let n_converted_files = conversion.as_ref().map_or(0, convert::Conversion::n_files);
    let n_files = files.len() as u64 + n_converted_files;
    let size_bytes = files.iter().map(|file| file.size_bytes).sum::<u64>()
        + conversion.as_ref().map_or(0, convert::Conversion::size_bytes);
    let (root, overwrite) = (dir.to_owned(), options.overwrite);
    let hashing = Meter::new(progress, Phase::Hashing, size_bytes);
    let looking = hashing.clone();
    let looked = blocking(move || {
        let existing = look(&root, &files, overwrite, &looking)?;
        let conversion = conversion.map(|conversion| {
            let looked = conversion.look(&root, overwrite, &looking)?;
            Ok::<_, Error>((conversion, looked))
        });
        Ok::<_, Error>((files.into_iter().zip(existing), conversion.transpose()?))
    });
    let (files, conversion) = looked.await?;
    let wanted: Vec<_> = files.filter(|(_, (_, existing))| *existing != Existing::Same).collect();
    let wanted_bytes = wanted.iter().map(|(file, _)| file.size_bytes).sum::<u64>()
        + conversion
            .as_ref()
            .map_or(0, |(conversion, looked)| conversion.wanted_bytes(looked));
    let shared = Arc::new(Shared {
        client: client.clone(),
        run: run.clone(),
        direct: DirectPull::new(client, run),
        held: Arc::new(Semaphore::new(HELD_BYTES)),
        gathering: Mutex::default(),
        decoders: Tools::new(),
        working: Arc::default(),
        meter: hashing.next(Phase::Receiving, wanted_bytes),
        received_bytes: AtomicU64::new(0),
        kept_bytes: AtomicU64::new(size_bytes - wanted_bytes),
    });
    let pulled = receive_all(&shared, wanted, conversion).await;
    // What a thread has begun goes on when nobody waits for it any more, and would meet the next pull's files.
    drop(shared.working.write().await);
    pulled?;
    Ok(PullOutcome {
        step: checkpoint.step,
        digest,
        n_files,
        size_bytes,
        n_converted_files,
        kept_bytes: shared.kept_bytes.load(Ordering::Relaxed),
        received_bytes: shared.received_bytes.load(Ordering::Relaxed),
        direct_bytes: shared.direct.moved_bytes(),
    })
}

/// Receives the files that are not there. Weights that are converted come first and get their names last: when they
/// fail, there is nothing that looks like a checkpoint.
async fn receive_all(
    shared: &Arc<Shared>,
    wanted: Vec<(CheckpointFile, (PathBuf, Existing))>,
    conversion: Option<(convert::Conversion, convert::Looked)>,
) -> Result<()> {
    let written = match conversion {
        Some((conversion, looked)) => Some(conversion.write(shared, looked).await?),
        None => None,
    };
    let pulls = wanted
        .into_iter()
        .map(|(file, (to, _))| partial::pull_file(Arc::clone(shared), file, to));
    futures::stream::iter(pulls)
        .buffer_unordered(N_FILES_AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    match written {
        Some(written) => written.finish(shared).await,
        None => Ok(()),
    }
}

/// Finds out that the listed files are the checkpoint's, and, by the manifest's own rules, that no path leaves the
/// folder. Every file's digest is compared later, so then all of the checkpoint is proven.
fn check_manifest(files: &[CheckpointFile], digest: Digest) -> Result<Manifest> {
    let corrupt = |reason: String| Error::Corrupt {
        what: "the list of files".to_owned(),
        digest,
        reason,
    };
    let entries = files.iter().map(|file| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: file.digest,
    });
    let manifest = Manifest::new(entries.collect()).map_err(|error| corrupt(error.to_string()))?;
    if manifest.digest() != digest {
        return Err(corrupt(format!("its own is `{}`", manifest.digest())));
    }
    for file in files {
        let size = file
            .chunks
            .iter()
            .try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.size_bytes));
        if size != Some(file.size_bytes) {
            return Err(corrupt(format!(
                "the chunks of `{}` do not add up to its size",
                file.path
            )));
        }
    }
    Ok(manifest)
}

/// Finds out what is there of each file, before anything is fetched; blocking.
fn look(dir: &Path, files: &[CheckpointFile], overwrite: bool, meter: &Meter) -> Result<Vec<(PathBuf, Existing)>> {
    let found = files.iter().map(|file| {
        let to = partial::place(dir, &file.path)?;
        let existing = partial::look(&to, file)?;
        refuse_other(&to, existing, overwrite)?;
        meter.add(file.size_bytes);
        Ok((to, existing))
    });
    found.collect()
}

/// Refuses a file with other content where that is not to be replaced.
pub(crate) fn refuse_other(to: &Path, existing: Existing, overwrite: bool) -> Result<()> {
    if existing != Existing::Other || overwrite {
        return Ok(());
    }
    let shown = to.display();
    Err(Error::Folder(format!(
        "`{shown}` is there with other content: pull into another folder, or overwrite (`--overwrite`)"
    )))
}

#[cfg(test)]
mod tests {
    use fineline_api::ChunkRef;

    use super::*;

    fn file(path: &str) -> CheckpointFile {
        let digest = Digest::of(b"abc");
        CheckpointFile {
            path: path.to_owned(),
            size_bytes: 3,
            digest,
            chunks: vec![ChunkRef { digest, size_bytes: 3 }],
        }
    }

    fn digest_of(path: &str) -> Digest {
        let (size_bytes, digest) = (3, Digest::of(b"abc"));
        let path = path.to_owned();
        Manifest::new(vec![FileEntry {
            path,
            size_bytes,
            digest,
        }])
        .unwrap()
        .digest()
    }

    #[test]
    fn a_list_that_is_not_the_checkpoints_is_refused() {
        assert!(check_manifest(&[file("a")], digest_of("a")).is_ok());
        assert!(matches!(
            check_manifest(&[file("a")], digest_of("b")),
            Err(Error::Corrupt { .. })
        ));
        assert!(matches!(
            check_manifest(&[file("../a")], digest_of("a")),
            Err(Error::Corrupt { .. })
        ));
        let mut long = file("a");
        long.chunks[0].size_bytes = 4;
        assert!(matches!(
            check_manifest(&[long], digest_of("a")),
            Err(Error::Corrupt { .. })
        ));
    }

    #[test]
    fn a_file_with_other_content_is_in_the_way_unless_overwriting() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "xyz").unwrap();
        let meter = Meter::new(|_| {}, Phase::Hashing, 3);
        let refused = look(dir.path(), &[file("a")], false, &meter).unwrap_err().to_string();
        assert!(refused.contains("other content"), "{refused}");
        assert_eq!(
            look(dir.path(), &[file("a")], true, &meter).unwrap()[0].1,
            Existing::Other
        );
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        assert_eq!(
            look(dir.path(), &[file("a")], false, &meter).unwrap()[0].1,
            Existing::Same
        );
    }
}
