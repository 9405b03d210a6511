//! What a push will send, as far as names, sizes, headers and indexes tell: checked, and where it is cut. The bytes
//! themselves are read in `pass`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fineline_api::CheckpointFile;
use fineline_format::weights::{MAX_INDEX_BYTES, check_index, index_path, read_tensors, weight_files};
use fineline_format::{Container, Digest, FileEntry, FormatError, Manifest, Segment, segments};

use crate::error::{Error, Result};
use crate::folder::LocalFile;

/// A folder, split and hashed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) manifest: Manifest,
    /// By path, as in the manifest.
    pub(crate) files: Vec<CheckpointFile>,
}

impl Plan {
    /// Raw bytes of the different chunks.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        let chunks = self.files.iter().flat_map(|file| &file.chunks);
        let different: HashMap<Digest, u64> = chunks.map(|chunk| (chunk.digest, chunk.size_bytes)).collect();
        different.values().sum()
    }
}

/// Checks the files of a folder. One without weights is in order: the registry says why it can't be evaluated.
pub(crate) fn check(files: &[LocalFile]) -> Result<()> {
    // Only paths and sizes are looked at here: the digests are not known before everything was read.
    let nothing = Digest::of(b"");
    let manifest = manifest(files.iter().map(|file| (file, nothing)))?;
    let by_path: HashMap<&str, &LocalFile> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let index = index_path(&manifest);
    let index_json = index.as_deref().map(|path| read_index(by_path[path])).transpose()?;
    let mut names = BTreeMap::new();
    let Some(weights) = weight_files(&manifest, index_json.as_deref())? else {
        return Ok(());
    };
    for path in &weights.shards {
        let open = by_path[path.as_str()].open()?;
        let container = Container::of(&open, path)?;
        match read_tensors(&open, container, path) {
            Ok(tensors) => {
                let tensors: BTreeSet<String> = tensors.into_iter().map(|tensor| tensor.name).collect();
                names.insert(path.clone(), tensors);
            }
            // Its bytes can be kept all the same.
            Err(FormatError::LegacyTorch(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    if let (Some(index), Some(json)) = (index, index_json) {
        check_index(&index, &json, &names)?;
    }
    Ok(())
}

/// Checks the files of a folder that is a part of a checkpoint: what an index says of them shows at the commit.
pub(crate) fn check_part(files: &[LocalFile]) -> Result<()> {
    for local in files.iter().filter(|local| local.path.ends_with(".safetensors")) {
        read_tensors(&local.open()?, Container::Safetensors, &local.path)?;
    }
    Ok(())
}

/// Finds out where the files of a folder are cut. All headers are read before the first long file is: a lie in the last
/// one shows at once.
pub(crate) fn cut(files: Vec<LocalFile>) -> Result<Vec<(LocalFile, Vec<Segment>)>> {
    let cut = |local: LocalFile| {
        let (_, segments) = segments(&local.open()?, &local.path)?;
        Ok((local, segments))
    };
    files.into_iter().map(cut).collect()
}

pub(crate) fn manifest<'a>(files: impl Iterator<Item = (&'a LocalFile, Digest)>) -> Result<Manifest> {
    let entries = files.map(|(file, digest)| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest,
    });
    Ok(Manifest::new(entries.collect())?)
}

fn read_index(local: &LocalFile) -> Result<Vec<u8>> {
    if local.size_bytes > MAX_INDEX_BYTES {
        let (path, size) = (&local.path, local.size_bytes);
        return Err(Error::Folder(format!(
            "index `{path}` has {size} bytes and may have {MAX_INDEX_BYTES}"
        )));
    }
    std::fs::read(&local.location).map_err(Error::io("read", &local.location))
}
