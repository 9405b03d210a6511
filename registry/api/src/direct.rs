//! Direct transfer: with an S3 store, bytes go between client and bucket by presigned URLs, and the registry's own calls
//! stay small. Who gets no URL sends and asks through the registry, which always works.
//!
//! **Invariant:** a URL reads one frame that the caller may read, or writes one staging place; a frame's own key is
//! written by the registry alone, once it has decoded and hashed what was staged.

use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most digests that one question for locations may hold.
pub const MAX_LOCATIONS: usize = 1000;

/// The most staging places that are given at once.
pub const MAX_STAGING_PLACES: u64 = 100;

/// Asks where these chunks' frames can be read without the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocateChunks {
    /// At most 1,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub digests: Vec<Digest>,
}

/// Where frames can be read. A chunk that is not among them is unknown to the caller, or goes through the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChunkLocations {
    /// Whether this registry has a store that clients may reach; without one there are never locations.
    pub offered: bool,
    /// Seconds from now that the URLs work.
    pub expires_in_s: u64,
    /// The frames.
    pub locations: Vec<ChunkLocation>,
}

/// Where one frame can be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChunkLocation {
    /// The chunk.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// A presigned URL for GET: whoever has it can read the frame, so it belongs in no log.
    pub url: String,
    /// Bytes of the frame.
    pub size_bytes: u64,
}

/// Asks for places to put frames at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageFrames {
    /// How many, at most 100.
    pub n: u64,
}

/// Places to put frames at; none where the registry does not offer it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StagingPlaces {
    /// Whether this registry has a store that clients may reach.
    pub offered: bool,
    /// Seconds from now that the URLs work.
    pub expires_in_s: u64,
    /// The places.
    pub places: Vec<StagingPlace>,
}

/// A place for one frame. What is put there counts for nothing until the registry is told, and is deleted some time
/// after its URL ran out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StagingPlace {
    /// What the push session calls it.
    pub id: Uuid,
    /// A presigned URL for PUT, a secret while it works.
    pub url: String,
}
