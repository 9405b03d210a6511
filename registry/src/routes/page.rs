//! The bounds of every paged list.

use fineline_api::page::MAX_LIMIT;

/// Items of a page when the query does not say.
const DEFAULT_LIMIT: u64 = 100;

/// The items of a page: what the query asks, within the bound.
pub(crate) fn limit(asked: Option<u64>) -> u64 {
    asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
}
