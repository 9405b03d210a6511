//! Chunks: the unit of storage and transfer, framed on the wire (`fineline_format::frame`).

use fineline_format::Digest;
use serde::{Deserialize, Serialize};

/// The most digests that one question may hold.
pub const MAX_MISSING_DIGESTS: usize = 10_000;

/// The media type of a frame.
pub const FRAME_MEDIA_TYPE: &str = "application/vnd.fineline.frame";

/// Asks which of these chunks a writer still has to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingChunksQuery {
    /// At most 10,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub digests: Vec<Digest>,
}

/// The chunks that the caller has to send, in the order asked. A chunk that is held where the caller may not read it
/// is missing to the caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingChunks {
    /// The digests.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub missing: Vec<Digest>,
}
