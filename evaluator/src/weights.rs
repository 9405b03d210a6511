//! A checkpoint's weights from a local folder, in whichever container and sharding, as tensors of one dtype.
//!
//! For the CPU files are mapped into memory where the system can, so that a tensor is copied once, from the page cache to where it
//! stays, and what was read can be given back at any time. A card reads what many threads put before it (`candle::cuda::upload`).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use fineline_format::weights::{index_path, read_tensor, read_tensors, weight_files};
use fineline_format::{Container, Digest, Dtype, FileEntry, Manifest, ReadAt, TensorLayout};
use memmap2::Mmap;

#[cfg(feature = "cuda")]
use crate::candle::upload::Upload;

/// A file as the format's readers take it.
#[derive(Debug)]
enum Local {
    Mapped(Mmap),
    File { file: File, size_bytes: u64 },
}

impl Local {
    #[expect(unsafe_code, reason = "a file is mapped into memory")]
    fn open(path: &Path, is_mapped: bool) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        if !is_mapped {
            return Ok(Self::File { file, size_bytes });
        }
        // SAFETY: the worker's copy of a checkpoint is in a folder of its own, which nothing writes to once it was pulled
        // and hashed. Whoever cuts a file while it is loaded ends the process (SIGBUS); no memory but the file's is read.
        match unsafe { Mmap::map(&file) } {
            Ok(map) if map.len() as u64 == size_bytes => Ok(Self::Mapped(map)),
            _ => Ok(Self::File { file, size_bytes }),
        }
    }

    /// A part of the file, where it is mapped.
    fn part(&self, offset: u64, size_bytes: u64) -> Option<&[u8]> {
        let Self::Mapped(map) = self else { return None };
        let (begin, size) = (usize::try_from(offset).ok()?, usize::try_from(size_bytes).ok()?);
        map.get(begin..begin.checked_add(size)?)
    }
}

impl ReadAt for Local {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Mapped(map) => map.len() as u64,
            Self::File { size_bytes, .. } => *size_bytes,
        }
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::File { file, .. } => file.read_exact_at(buf, offset),
            Self::Mapped(_) => {
                let part = self.part(offset, buf.len() as u64);
                buf.copy_from_slice(part.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// The tensors of a checkpoint, read when they are taken.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Local>,
    tensors: BTreeMap<String, (usize, fineline_format::Tensor)>,
    dtype: DType,
    device: Device,
    #[cfg(feature = "cuda")]
    upload: Option<Upload>,
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
            // What a cache keeps is shown here by links.
            let metadata = std::fs::metadata(entry.path())?;
            if let (true, Ok(path)) = (metadata.is_file(), entry.file_name().into_string()) {
                let size_bytes = metadata.len();
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
            #[cfg(feature = "cuda")]
            upload: match device {
                Device::Cuda(device) => Some(Upload::new(device).context("memory that the card reads")?),
                _ => None,
            },
        };
        for shard in &found.shards {
            let local = Local::open(&dir.join(shard), device.is_cpu()).with_context(|| format!("file `{shard}`"))?;
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
            bail!("tensor `{name}` is missing: it should have shape {shape:?}")
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
        let read = self.read(file, &tensor, dtype, shape);
        Ok(read.with_context(|| format!("tensor `{name}`"))?.to_dtype(self.dtype)?)
    }

    /// Reads a tensor as it is, to where it stays.
    fn read(&mut self, file: usize, tensor: &fineline_format::Tensor, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let file = &self.files[file];
        #[cfg(feature = "cuda")]
        if let (Some(upload), TensorLayout::Contiguous { offset, .. }) = (&mut self.upload, &tensor.layout) {
            let read = |at: usize, bytes: &mut [u8]| file.read_exact_at(offset + at as u64, bytes);
            return upload.tensor(dtype, shape, read).map_err(|error| match error {
                // By its own type, which says that another try may succeed.
                candle_core::Error::Io(error) => error.into(),
                error => error.into(),
            });
        }
        let mapped = match tensor.layout {
            TensorLayout::Contiguous { offset, size_bytes } => file.part(offset, size_bytes),
            TensorLayout::Strided { .. } => None,
        };
        Ok(match mapped {
            Some(bytes) => Tensor::from_raw_buffer(bytes, dtype, shape, &self.device)?,
            None => Tensor::from_raw_buffer(&read_tensor(file, tensor)?, dtype, shape, &self.device)?,
        })
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
