//! Staging places: where clients put frames by themselves. The registry reads what is there once, decodes and hashes these
//! very bytes, and writes them under a key that no client ever gets a URL for.
//!
//! A place is a row before its URL is given away, and stays one until its URL has run out for so long that no put can be
//! under way: until then something may be put there again, which changes nothing and is taken away by the sweep.
//!
//! **Invariant:** a place is its push session's alone; what is put there counts for nothing before [`take`].

use std::time::Duration;

use fineline_api::direct::MAX_STAGING_PLACES;
use fineline_api::error::ErrorCode;
use fineline_api::{StagingPlace, StagingPlaces};
use fineline_format::{Digest, MAX_FRAME_BYTES};
use futures::{StreamExt, stream};
use metrics::counter;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::chunk::{self, store_error};
use crate::service::locate::url_lifetime;
use crate::service::{possession, push_session, sweep};
use crate::store::Staged;

/// Places that are swept together; their objects are deleted some at a time.
const SWEPT_AT_ONCE: u64 = 500;
const DELETES_AT_ONCE: usize = 8;

/// Gives an open session `n` places; none where clients are not given URLs.
///
/// # Errors
/// 404 / 409 for the session, 413 for more than 100 places.
pub(crate) async fn open(app: &App, run: &RunRow, session: Uuid, n: u64) -> ApiResult<StagingPlaces> {
    if n > MAX_STAGING_PLACES {
        let message = format!("{n} staging places were asked for, at most {MAX_STAGING_PLACES} at once");
        return Err(ApiError::new(ErrorCode::TooLarge, message).hint("ask again when these are used"));
    }
    push_session::find_open(app, run, session).await?;
    let lifetime = url_lifetime(app);
    let mut answer = StagingPlaces {
        offered: app.store.gives_urls(),
        expires_in_s: lifetime.as_secs(),
        places: Vec::new(),
    };
    if !answer.offered || n == 0 {
        return Ok(answer);
    }
    let ids: Vec<Uuid> = (0..n).map(|_| Uuid::now_v7()).collect();
    let txn = db::write_txn(&app.db).await?;
    if !db::push_session::touch(&txn, session, 0, 0).await? {
        return Err(push_session::not_open(session));
    }
    db::staging::insert(&txn, session, &ids, milliseconds(lifetime)).await?;
    txn.commit().await?;
    fail_point!("staging.intended");
    for id in ids {
        let url = app.store.staging_url(id, lifetime).await.map_err(store_error)?;
        answer.places.extend(url.map(|url| StagingPlace { id, url }));
    }
    Ok(answer)
}

/// Takes a chunk in whose frame was put at a place. Told again after a lost answer it is a success.
///
/// # Errors
/// 404 for a place that is not this session's, 413 for what is longer than any frame, 422 where nothing was put or for a
/// frame that is refused; and as [`chunk::put`].
pub(crate) async fn take(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    session: Uuid,
    id: Uuid,
    digest: Digest,
) -> ApiResult<()> {
    push_session::find_open(app, run, session).await?;
    if !db::staging::is_of(app.db.reader(), session, id).await? {
        return Err(ApiError::not_found(format!(
            "staging place `{id}` in push session `{session}`"
        )));
    }
    let _permit = app.staged.acquire().await.map_err(ApiError::internal)?;
    let staged = app.store.get_staged(id, MAX_FRAME_BYTES as u64).await;
    let taken = match staged.map_err(store_error)? {
        Staged::Frame(frame) => {
            fail_point!("staging.read");
            let staged_bytes = frame.len() as u64;
            let taken = chunk::take_frame(app, run, session, digest, frame).await;
            if taken.is_ok() {
                counter!("fineline_chunk_staged_bytes_total").increment(staged_bytes);
            }
            taken
        }
        Staged::TooLong(n_bytes) => Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("{n_bytes} bytes were staged, and a frame has at most {MAX_FRAME_BYTES}"),
        )),
        // What was taken in before is taken away there.
        Staged::Nothing if is_held(app, caller, digest).await? => return Ok(()),
        Staged::Nothing => {
            return Err(ApiError::unprocessable(format!("nothing is at staging place `{id}`"))
                .hint("put the frame at its URL first, or send it with this call"));
        }
    };
    fail_point!("staging.taken");
    // What passes may be told again, and is then read again.
    if !taken.as_ref().is_err_and(|error| error.status().is_server_error()) {
        clear(app, id).await;
    }
    taken
}

async fn is_held(app: &App, caller: &Caller, digest: Digest) -> ApiResult<bool> {
    Ok(possession::name_chunks(app, caller, &[digest])
        .await?
        .contains_key(&digest))
}

/// Takes away what is at a place; its row stays, for something may be put there as long as its URL works.
async fn clear(app: &App, id: Uuid) {
    if let Err(error) = app.store.delete_staged(id).await {
        tracing::warn!(%error, staged = %id, "a staged frame is left to the sweep");
    }
}

/// Takes away what is at places whose URLs ran out, and the places.
///
/// # Errors
/// The first that the store refused; its place stays for the next sweep.
pub(crate) async fn sweep(app: &App) -> ApiResult<()> {
    let margin_ms = sweep::INTENT_GRACE_MS.min(sweep::grace_ms(app));
    let before = db::now_ms(app.db.reader()).await? - margin_ms;
    loop {
        let expired = db::staging::expired(app.db.reader(), before, SWEPT_AT_ONCE).await?;
        if expired.is_empty() {
            return Ok(());
        }
        let store = app.store.clone();
        let delete = move |id: Uuid| {
            let store = store.clone();
            async move { store.delete_staged(id).await.map(|()| id) }
        };
        let deletes = stream::iter(expired).map(delete).buffer_unordered(DELETES_AT_ONCE);
        let deleted: Vec<_> = deletes.collect().await;
        fail_point!("staging.deleted");
        let (mut gone, mut refused) = (Vec::new(), None);
        for deleted in deleted {
            match deleted {
                Ok(id) => gone.push(id),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let txn = db::write_txn(&app.db).await?;
        db::staging::forget(&txn, &gone).await?;
        txn.commit().await?;
        if let Some(error) = refused {
            return Err(store_error(error));
        }
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
