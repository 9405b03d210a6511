//! Rows of chunks that come in: what many requests write at the same time goes into one transaction, so that many small
//! chunks do not wait for a sync of the database each.
//!
//! **Invariant:** a request is answered only after the transaction with its row was committed; a row that is refused
//! changes nothing, and does not touch the rows beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fineline_api::ChunkRef;
use fineline_api::error::ErrorCode;
use fineline_format::Digest;
use sea_orm::DatabaseTransaction;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::frame::Attached;
use crate::error::ApiResult;
use crate::service::chunk::unavailable;
use crate::service::push_session;

/// What a request writes.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    /// An object of that id will be put.
    Intent {
        id: Uuid,
        chunk: Digest,
        stored_bytes: usize,
    },
    /// A chunk is there: in `frame`, whose object was written, or in one that was there before.
    Arrival {
        chunk: ChunkRef,
        frame: Option<Uuid>,
        /// The run and the push session that it came with; none for what the server keeps by itself.
        pusher: Option<(i64, Uuid)>,
    },
}

type Answer = oneshot::Sender<ApiResult<Attached>>;

/// Rows that wait for the transaction that is being written; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intake {
    waiting: Arc<Mutex<Vec<(Row, Answer)>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Writes a row; an intent answers [`Attached::New`].
///
/// # Errors
/// 409 when the push session is not open any more, 503 when the database does not answer.
pub(crate) async fn write(app: &App, row: Row) -> ApiResult<Attached> {
    let (answer, mut answered) = oneshot::channel();
    let intake = &app.intake;
    intake
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((row, answer));
    let turn = tokio::select! {
        // Whoever had the turn took this row along.
        answer = &mut answered => return taken(answer),
        turn = Arc::clone(&intake.turn).lock_owned() => turn,
    };
    let app = app.clone();
    // On its own: a request that goes away must not take the rows of others with it.
    tokio::spawn(async move {
        let waiting = std::mem::take(&mut *app.intake.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !waiting.is_empty() {
            write_all(&app, waiting).await;
        }
        drop(turn);
    });
    taken(answered.await)
}

fn taken(answer: Result<ApiResult<Attached>, oneshot::error::RecvError>) -> ApiResult<Attached> {
    answer.unwrap_or_else(|_| {
        Err(unavailable(
            "the task that writes rows ended before it had written this one",
        ))
    })
}

async fn write_all(app: &App, waiting: Vec<(Row, Answer)>) {
    let (rows, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
    match in_one_transaction(app, &rows).await {
        Ok(results) => {
            for (answer, result) in answers.into_iter().zip(results) {
                // A request that has gone away hears nothing.
                drop(answer.send(result));
            }
        }
        // One of them may be what is wrong: the others are not refused for it.
        Err(error) if error.code() == ErrorCode::Internal && rows.len() > 1 => {
            for (row, answer) in rows.iter().zip(answers) {
                let alone = in_one_transaction(app, std::slice::from_ref(row)).await;
                drop(answer.send(alone.and_then(|mut results| results.remove(0))));
            }
        }
        // A database that is full, or that moved, is so for each of them.
        Err(error) => {
            for answer in answers {
                drop(answer.send(Err(error.clone())));
            }
        }
    }
}

async fn in_one_transaction(app: &App, rows: &[Row]) -> ApiResult<Vec<ApiResult<Attached>>> {
    let txn = db::write_txn(&app.db).await?;
    let mut results = Vec::with_capacity(rows.len());
    let mut arrived = BTreeMap::new();
    for row in rows {
        results.push(match row {
            Row::Intent {
                id,
                chunk,
                stored_bytes,
            } => {
                db::frame::intend(&txn, *id, chunk, *stored_bytes).await?;
                Ok(Attached::New)
            }
            Row::Arrival { chunk, frame, pusher } => arrive(&txn, *chunk, *frame, *pusher, &mut arrived).await?,
        });
    }
    for ((run_id, session), chunks) in arrived {
        let size_bytes = chunks.iter().map(|chunk: &ChunkRef| chunk.size_bytes).sum();
        db::push_session::touch(&txn, session, chunks.len() as u64, size_bytes).await?;
        let mut digests: Vec<Digest> = chunks.into_iter().map(|chunk| chunk.digest).collect();
        // A statement may name a row once.
        digests.sort_unstable();
        digests.dedup();
        db::possession::insert(&txn, run_id, &digests, false).await?;
        fail_point!("chunk.attached");
    }
    txn.commit().await?;
    Ok(results)
}

/// Chunks of this transaction by run and push session; a session that is not open has none.
type Arrived = BTreeMap<(i64, Uuid), Vec<ChunkRef>>;

async fn arrive(
    txn: &DatabaseTransaction,
    chunk: ChunkRef,
    frame: Option<Uuid>,
    pusher: Option<(i64, Uuid)>,
    arrived: &mut Arrived,
) -> ApiResult<ApiResult<Attached>> {
    if let Some(pusher) = pusher
        && !arrived.contains_key(&pusher)
        && !db::push_session::touch(txn, pusher.1, 0, 0).await?
    {
        return Ok(Err(push_session::not_open(pusher.1)));
    }
    let attached = db::frame::attach(txn, frame, &chunk.digest, chunk.size_bytes).await?;
    if let Some(pusher) = pusher
        && attached != Attached::Gone
    {
        arrived.entry(pusher).or_default().push(chunk);
    }
    Ok(Ok(attached))
}
