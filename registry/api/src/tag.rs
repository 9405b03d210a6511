//! Tags (mutable names of a checkpoint) and releases (immutable ones, with notes).

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// Points a tag to a checkpoint, wherever it pointed before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetTag {
    /// What it is to point to.
    pub reference: Reference,
}

/// A mutable name of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tag {
    /// The name.
    pub tag: String,
    /// The step it points to.
    pub step: u64,
    /// The checkpoint it points to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

/// Makes a release: a name that never moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateRelease {
    /// The name.
    pub release: String,
    /// What it points to.
    pub reference: Reference,
    /// For people.
    #[serde(default)]
    pub notes: String,
}

/// An immutable name of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// The name.
    pub release: String,
    /// The step it points to.
    pub step: u64,
    /// The checkpoint it points to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// For people.
    pub notes: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
