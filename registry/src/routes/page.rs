//! The query of every paged list.

use fineline_api::page::MAX_LIMIT;
use serde::Deserialize;

/// Items of a page when the query does not say.
const DEFAULT_LIMIT: u64 = 100;

/// The items of a page: what the query asks, within the bound.
pub(crate) fn limit(asked: Option<u64>) -> u64 {
    asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
}

/// `?cursor=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// Items of a page, at most 1,000; 100 when absent.
    pub(crate) limit: Option<u64>,
}
