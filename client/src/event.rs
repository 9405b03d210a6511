//! What happens to a run, read on from any point.

use fineline_api::{Event, RunName, path};

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Events with ids above `after`, oldest first; when there is none the server waits up to `wait_s` (at most 30)
    /// seconds for one.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_events(&self, run: &RunName, after: i64, wait_s: u64, limit: Option<u64>) -> Result<Vec<Event>> {
        let call = Call::get(path::run(run, "/events"))
            .query("after", Some(after))
            .query("limit", limit);
        self.json(call.wait_s(wait_s)).await
    }
}
