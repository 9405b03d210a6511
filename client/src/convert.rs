//! A checkpoint's PyTorch files pulled as safetensors: which files come in their place, whether they are there, and
//! when they get their names. How one is put together stands in `shard`.
//!
//! The registry lists name, dtype, shape and digest of every tensor, and by that each file that is to be written is
//! known to its size before a byte is fetched.
//!
//! **Invariant:** no file gets its name before all of them, as they are on the disk, have the checkpoint's weights
//! digest.

mod shard;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fineline_api::{Checkpoint, CheckpointFile, Reference, RunName, Tensor};
use fineline_format::layout::{INDEX_FILE, SINGLE_FILE, index_json, shard_name};
use fineline_format::weights::{MAX_INDEX_BYTES, WeightFiles, index_path, weight_files, weights_digest};
use fineline_format::{Container, Digest, FormatError, Manifest};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::{Error, Result};
use crate::http::Client;
use crate::partial::{self, Existing, Partial, finish, look_for, place, work};
use crate::progress::Meter;
use crate::pull::{N_FILES_AT_ONCE, Shared, refuse_other};
use shard::Shard;

/// What a checkpoint's weights are written as.
pub(crate) struct Conversion {
    weights_digest: Digest,
    shards: Vec<Arc<Shard>>,
    /// Its content, when there is one.
    index: Option<Vec<u8>>,
    /// Files of the checkpoint in whose place these come.
    replaced: Vec<String>,
}

/// Where the files go and what is there.
pub(crate) struct Looked {
    shards: Vec<(PathBuf, Existing)>,
    index: Option<(PathBuf, Existing)>,
}

/// Files that are whole, and have their names still to come.
pub(crate) struct Written {
    shards: Vec<(Arc<Partial>, PathBuf)>,
    index: Option<(Vec<u8>, PathBuf)>,
}

/// Finds out what a checkpoint's weights are to be written as; `None` when they are safetensors already.
///
/// # Errors
/// [`Error::NotConvertible`] when its tensors can't be listed.
pub(crate) async fn plan(
    client: &Client,
    run: &RunName,
    checkpoint: &Checkpoint,
    manifest: &Manifest,
    files: &[CheckpointFile],
) -> Result<Option<Conversion>> {
    let reference = Reference::Digest(manifest.digest());
    let index = read_index(client, run, &reference, manifest).await?;
    let not_convertible = |reason: String| Error::NotConvertible {
        step: checkpoint.step,
        reason,
    };
    let Some(found) = weight_files(manifest, index.as_deref())? else {
        let why = checkpoint.not_evaluable.clone();
        return Err(not_convertible(why.unwrap_or_else(|| "it has no weights".to_owned())));
    };
    if found.is_safetensors() {
        return Ok(None);
    }
    let Some(digest) = checkpoint.weights_digest else {
        return Err(not_convertible(
            unread(client, run, &reference, &found).await?.to_string(),
        ));
    };
    let tensors = client.list_tensors(run, &reference).await?;
    let conversion = laid_out(digest, &found, files, tensors)?;
    let names = conversion.shards.iter().map(|shard| shard.path.as_str());
    if let Some(taken) = names.chain([INDEX_FILE]).find(|path| manifest.get(path).is_some()) {
        return Err(not_convertible(format!("it has another file of the name `{taken}`")));
    }
    Ok(Some(conversion))
}

/// The content of the index of the weights, if there is one.
async fn read_index(
    client: &Client,
    run: &RunName,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<Option<Vec<u8>>> {
    let Some(path) = index_path(manifest) else {
        return Ok(None);
    };
    let entry = manifest.get(&path).expect("an index is a file of its manifest");
    let corrupt = |reason: String| Error::Corrupt {
        what: format!("`{path}`"),
        digest: entry.digest,
        reason,
    };
    if entry.size_bytes > MAX_INDEX_BYTES {
        return Err(corrupt(format!("it has more than {MAX_INDEX_BYTES} bytes")));
    }
    let bytes = client.get_file(run, reference, &path, None).await?.bytes;
    let digest = Digest::of(&bytes);
    if digest != entry.digest {
        return Err(corrupt(format!("its own is `{digest}`")));
    }
    Ok(Some(bytes.to_vec()))
}

/// Why the registry has no tensors of these files.
async fn unread(client: &Client, run: &RunName, reference: &Reference, found: &WeightFiles) -> Result<FormatError> {
    for shard in &found.shards {
        let head = client.get_file(run, reference, shard, Some(0..4)).await;
        let head = head.map(|head| head.bytes.to_vec()).unwrap_or_default();
        if Container::of(&head, shard)? == Container::Other {
            return Ok(FormatError::LegacyTorch(shard.clone()));
        }
    }
    Ok(FormatError::LegacyTorch(found.shards.join(", ")))
}

/// Lays the listed tensors out in files as many as they are in.
fn laid_out(digest: Digest, found: &WeightFiles, files: &[CheckpointFile], tensors: Vec<Tensor>) -> Result<Conversion> {
    let corrupt = |reason: String| Error::Corrupt {
        what: "the list of tensors".to_owned(),
        digest,
        reason,
    };
    let (mut by_file, mut rows) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for tensor in tensors {
        let dtype = tensor.dtype.parse().map_err(corrupt)?;
        rows.push((tensor.name.clone(), dtype, tensor.shape.clone(), tensor.digest));
        let of_file = by_file.entry(tensor.path).or_default();
        of_file.push((tensor.name, dtype, tensor.shape, tensor.digest));
    }
    let listed = weights_digest(rows)?;
    if listed != digest {
        return Err(corrupt(format!("its own is `{listed}`")));
    }
    let mut shards = Vec::new();
    for (n, stored) in found.shards.iter().enumerate() {
        let path = match found.index {
            Some(_) => shard_name(n + 1, found.shards.len()),
            None => SINGLE_FILE.to_owned(),
        };
        let file = files.iter().find(|file| file.path == *stored);
        let file = file.ok_or_else(|| corrupt(format!("`{stored}` is not listed")))?;
        let of_file = by_file.remove(stored).unwrap_or_default();
        shards.push(Arc::new(Shard::new(file.clone(), path, of_file)?));
    }
    if let Some(path) = by_file.into_keys().next() {
        return Err(corrupt(format!("it names `{path}`, which holds no weights")));
    }
    let layouts = shards.iter().map(|shard| (shard.path.as_str(), &shard.layout));
    Ok(Conversion {
        weights_digest: digest,
        index: found.index.is_some().then(|| index_json(layouts)),
        shards,
        replaced: found.shards.iter().chain(&found.index).cloned().collect(),
    })
}

impl Conversion {
    /// Whether a file of the checkpoint is not pulled, since these come in its place.
    pub(crate) fn replaces(&self, path: &str) -> bool {
        self.replaced.iter().any(|replaced| replaced == path)
    }

    /// Files that are written.
    pub(crate) fn n_files(&self) -> u64 {
        self.shards.len() as u64 + u64::from(self.index.is_some())
    }

    /// Bytes of the files that are written.
    pub(crate) fn size_bytes(&self) -> u64 {
        let index = self.index.as_ref().map_or(0, Vec::len) as u64;
        self.shards.iter().map(|shard| shard.layout.size_bytes).sum::<u64>() + index
    }

    /// Finds out what is there of them; blocking.
    pub(crate) fn look(&self, dir: &Path, overwrite: bool, meter: &Meter) -> Result<Looked> {
        let at = |path: &str, size_bytes: u64, is_same: &dyn Fn(&Path) -> Result<bool>| {
            let to = place(dir, path)?;
            let existing = look_for(&to, size_bytes, || is_same(&to))?;
            refuse_other(&to, existing, overwrite)?;
            meter.add(size_bytes);
            Ok::<_, Error>((to, existing))
        };
        let shard = |shard: &Arc<Shard>| at(&shard.path, shard.layout.size_bytes, &|to| shard.is_at(to));
        let index = |json: &Vec<u8>| {
            at(INDEX_FILE, json.len() as u64, &|to| {
                Ok(fs::read(to).map_err(Error::io("read", to))? == *json)
            })
        };
        Ok(Looked {
            shards: self.shards.iter().map(shard).collect::<Result<_>>()?,
            index: self.index.as_ref().map(index).transpose()?,
        })
    }

    /// Bytes that are yet to be written.
    pub(crate) fn wanted_bytes(&self, looked: &Looked) -> u64 {
        let shards = self.shards.iter().zip(&looked.shards);
        let wanted = shards.filter(|(_, (_, existing))| *existing != Existing::Same);
        let index = match (&self.index, &looked.index) {
            (Some(json), Some((_, existing))) if *existing != Existing::Same => json.len() as u64,
            _ => 0,
        };
        wanted.map(|(shard, _)| shard.layout.size_bytes).sum::<u64>() + index
    }

    /// Writes the files that are not there, beside their names, and compares the weights digest of all.
    pub(crate) async fn write(self, shared: &Arc<Shared>, looked: Looked) -> Result<Written> {
        let mut rows = Vec::new();
        let mut wanted = Vec::new();
        for (shard, (to, existing)) in self.shards.iter().zip(looked.shards) {
            match existing {
                // Its header and each of these digests were compared with the file that is there.
                Existing::Same => rows.extend(shard.rows()),
                _ => wanted.push((shard, to)),
            }
        }
        let writes = wanted.into_iter().map(|(shard, to)| async move {
            let (partial, rows) = shard::write(shared, shard, &to).await?;
            Ok::<_, Error>((partial, to, rows))
        });
        let mut written = futures::stream::iter(writes).buffer_unordered(N_FILES_AT_ONCE);
        let mut shards = Vec::new();
        while let Some((partial, to, of_file)) = written.try_next().await? {
            rows.extend(of_file);
            shards.push((partial, to));
        }
        drop(written);
        let digest = weights_digest(rows)?;
        if digest != self.weights_digest {
            return Err(Error::Corrupt {
                what: "the weights as they were written".to_owned(),
                digest: self.weights_digest,
                reason: format!("their own is `{digest}`"),
            });
        }
        let index = self.index.zip(looked.index);
        let index = index.filter(|(_, (_, existing))| *existing != Existing::Same);
        Ok(Written {
            shards,
            index: index.map(|(json, (to, _))| (json, to)),
        })
    }
}

impl Written {
    /// Gives the files their names; the index, by which the others are found, comes last.
    pub(crate) async fn finish(self, shared: &Shared) -> Result<()> {
        for (partial, to) in self.shards {
            work(shared, move || finish(&partial, &to)).await?;
        }
        let Some((json, to)) = self.index else { return Ok(()) };
        let n = json.len() as u64;
        work(shared, move || {
            let (partial, _) = partial::Partial::open(&to, n)?;
            partial.write(&json, 0)?;
            finish(&partial, &to)
        })
        .await?;
        shared.meter.add(n);
        Ok(())
    }
}
