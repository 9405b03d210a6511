//! Following a paged list to its end.

use fineline_api::Page;

use crate::error::Result;

/// All items of a paged list: `get` is given each page's cursor, first none.
///
/// ```no_run
/// # async fn example(client: fineline_client::Client) -> fineline_client::Result<()> {
/// let runs = fineline_client::all_pages(async |cursor: Option<String>| client.list_runs(None, cursor.as_deref(), None).await).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As `get`.
pub async fn all_pages<T>(mut get: impl AsyncFnMut(Option<String>) -> Result<Page<T>>) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let page = get(cursor.take()).await?;
        items.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(items),
        }
    }
}
