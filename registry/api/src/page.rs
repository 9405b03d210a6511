//! Pages of long lists.

use serde::{Deserialize, Serialize};

/// The largest page that the server hands out.
pub const MAX_LIMIT: u64 = 1000;

/// A page of a list, in the list's own order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Give this as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
