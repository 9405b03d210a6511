//! The store as an operator sees it: collecting what nothing needs.

use serde::{Deserialize, Serialize};

/// Asks for a collection now.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectGarbage {
    /// Only counts; nothing is condemned or deleted.
    #[serde(default)]
    pub dry_run: bool,
}

/// Frames in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FrameCount {
    /// How many.
    pub n: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GarbageReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Seconds between condemning and deleting.
    pub grace_s: u64,
    /// Frames that something needs, after this collection.
    pub live: FrameCount,
    /// Frames that this collection condemned: nothing needs them any more.
    pub condemned: FrameCount,
    /// Frames condemned before whose grace is not over.
    pub waiting: FrameCount,
    /// Frames that were deleted: their grace was over.
    pub deleted: FrameCount,
}
