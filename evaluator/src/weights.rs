//! A checkpoint's weights from a local folder, in whichever container and sharding, as tensors of one dtype.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use fineline_format::weights::{index_path, read_tensor, read_tensors, weight_files};
use fineline_format::{Container, Digest, Dtype, FileEntry, Manifest, ReadAt};

/// A file as the format's readers take it.
#[derive(Debug)]
struct Local {
    file: File,
    size_bytes: u64,
}

impl ReadAt for Local {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// The tensors of a checkpoint, read when they are taken.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Local>,
    tensors: BTreeMap<String, (usize, fineline_format::Tensor)>,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// Lists the tensors of a checkpoint's folder.
    ///
    /// # Errors
    /// When there are no weights, or a file is damaged: named.
    pub fn open(dir: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("folder `{}`", dir.display()))? {
            let entry = entry?;
            if let (true, Ok(path)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                let size_bytes = entry.metadata()?.len();
                entries.push(FileEntry {
                    path,
                    size_bytes,
                    digest: Digest::of(b""),
                });
            }
        }
        let manifest = Manifest::new(entries)?;
        let index = index_path(&manifest)
            .map(|path| std::fs::read(dir.join(path)))
            .transpose()?;
        let Some(found) = weight_files(&manifest, index.as_deref())? else {
            bail!("folder `{}` holds no weights", dir.display());
        };
        let mut weights = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            dtype,
            device: device.clone(),
        };
        for shard in &found.shards {
            let file = File::open(dir.join(shard)).with_context(|| format!("file `{shard}`"))?;
            let local = Local {
                size_bytes: file.metadata()?.len(),
                file,
            };
            let container = Container::of(&local, shard)?;
            for tensor in read_tensors(&local, container, shard)? {
                let name = tensor.name.clone();
                let known = weights
                    .tensors
                    .insert(name.clone(), (weights.files.len(), tensor))
                    .is_some();
                ensure!(!known, "tensor `{name}` stands in two files");
            }
            weights.files.push(local);
        }
        Ok(weights)
    }

    /// Takes a tensor, which must have the shape.
    ///
    /// # Errors
    /// When it is missing, of another shape, or of a dtype that holds no weights.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some((file, tensor)) = self.tensors.remove(name) else {
            bail!("tensor `{name}` is missing")
        };
        let found: Vec<usize> = tensor.shape.iter().map(|&dim| dim as usize).collect();
        ensure!(
            found == shape,
            "tensor `{name}` has shape {found:?} and should have {shape:?}"
        );
        let dtype = match tensor.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            other => bail!("tensor `{name}` is {other}: weights are F32, F16 or BF16"),
        };
        let bytes = read_tensor(&self.files[file], &tensor)?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, shape, &self.device)?.to_dtype(self.dtype)?)
    }

    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Checks that nothing is left but what a LLaMA may carry along.
    ///
    /// # Errors
    /// Names a tensor that no part of the model took.
    pub fn finish(self, tied: bool) -> Result<()> {
        let harmless = |name: &str| name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
        match self.tensors.keys().find(|name| !harmless(name)) {
            Some(name) => bail!("tensor `{name}` is no part of this architecture: config.json names another model"),
            None => Ok(()),
        }
    }
}
