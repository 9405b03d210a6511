//! Where clients read frames by themselves: presigned URLs of frames that the caller may read.
//!
//! **Invariant:** a URL is given for a live frame alone and works for half of the grace at the most (of a grace that is not
//! made for a test, which is more than two seconds). A live frame is
//! deleted a whole grace after it was condemned, and condemned no earlier than now, so it outlives its URLs. A chunk whose
//! frame is in another state goes through the server, where reading it is a moment's matter.

use std::time::Duration;

use fineline_api::direct::MAX_LOCATIONS;
use fineline_api::error::ErrorCode;
use fineline_api::{ChunkLocation, ChunkLocations};
use fineline_format::Digest;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::error::{ApiError, ApiResult};
use crate::service::{content, possession};

const URL_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long a presigned URL works.
pub(crate) fn url_lifetime(app: &App) -> Duration {
    let whole_s = (app.options.grace / 2).min(URL_LIFETIME).as_secs();
    Duration::from_secs(whole_s.max(1))
}

/// Where the frames of those of these chunks can be read that the caller may name.
///
/// # Errors
/// 413 for more than 1,000 digests.
pub(crate) async fn locate(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<ChunkLocations> {
    if digests.len() > MAX_LOCATIONS {
        let message = format!(
            "{} digests were asked for, at most {MAX_LOCATIONS} at once",
            digests.len()
        );
        return Err(ApiError::new(ErrorCode::TooLarge, message).hint("ask in several parts"));
    }
    let lifetime = url_lifetime(app);
    let mut answer = ChunkLocations {
        offered: app.store.gives_urls(),
        expires_in_s: lifetime.as_secs(),
        locations: Vec::new(),
    };
    if !answer.offered {
        return Ok(answer);
    }
    let held = possession::held_chunks(app, caller, digests).await?;
    let held: Vec<Digest> = held.into_keys().collect();
    for (digest, frame, size_bytes) in db::frame::live(app.db.reader(), &held).await? {
        let url = app
            .store
            .frame_url(frame, lifetime)
            .await
            .map_err(content::store_down)?;
        answer.locations.extend(url.map(|url| ChunkLocation {
            digest,
            url,
            size_bytes,
        }));
    }
    Ok(answer)
}
