//! Fineline's formats, without I/O and without async: digests, manifests, the readers of both weight containers, how
//! weights are laid out as safetensors, the splitter, the frame codec, suites of tasks and those that are built in, what
//! a checkpoint says besides its weights (its name, a trainer's state, scores), and memory that is used again.
//!
//! **Invariant:** every reader here is bounded: it never allocates what an input merely claims.

mod buffers;
pub mod digest;
mod error;
pub mod evaluable;
pub mod frame;
pub mod gather;
mod json;
pub mod layout;
pub mod library;
pub mod manifest;
mod pack;
mod pickle;
mod planes;
pub mod python_json;
mod rebuild;
mod safetensors;
pub mod shipped_scores;
mod source;
pub mod split;
pub mod step_name;
pub mod suite;
pub mod task;
mod torch;
pub mod trainer_state;
pub mod weights;
mod yaml;
mod zip;

pub use buffers::{Buffer, Buffers, return_large_memory};
pub use digest::{Digest, Hasher};
pub use error::{FormatError, shown_within};
pub use frame::{Element, FrameError, MAX_CHUNK_BYTES, MAX_FRAME_BYTES};
pub use layout::Layout;
pub use manifest::{FileEntry, Manifest, check_path};
pub use source::ReadAt;
pub use split::{PIECE_BYTES, Segment, cdc_chunks, cdc_cuts, segments, settled_cdc_cuts};
pub use weights::{Container, Dtype, Tensor, TensorLayout};
