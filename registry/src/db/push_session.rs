//! Push sessions and the files that they were given.

use fineline_api::{ChunkRef, PushSessionState};
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr, ExprTrait, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Select,
};
use uuid::Uuid;

use super::entity::{push_session, push_session_file};
use crate::recipe;

/// A push session as the services see it.
#[derive(Debug, Clone)]
pub(crate) struct SessionRow {
    pub(crate) id: Uuid,
    /// The revision that it fills; absent where the step held the same checkpoint already.
    pub(crate) revision_id: Option<i64>,
    pub(crate) step: u64,
    /// The word that the ranks of a job share.
    pub(crate) name: Option<String>,
    pub(crate) state: PushSessionState,
    pub(crate) unchanged: bool,
    pub(crate) manifest_digest: Option<Digest>,
    pub(crate) received_chunks: u64,
    pub(crate) received_bytes: u64,
    /// An [`fineline_api::ErrorDetail`] as JSON.
    pub(crate) failure: Option<String>,
    pub(crate) created_at_ms: i64,
}

fn session_row(row: push_session::Model) -> Result<SessionRow, DbErr> {
    Ok(SessionRow {
        id: row.id,
        revision_id: row.revision_id,
        step: row.step.unsigned_abs(),
        name: row.session_name,
        state: row.state.parse().map_err(DbErr::Type)?,
        unchanged: row.unchanged,
        manifest_digest: row.manifest_digest.as_deref().map(super::digest).transpose()?,
        received_chunks: row.received_chunks.unsigned_abs(),
        received_bytes: row.received_bytes.unsigned_abs(),
        failure: row.failure,
        created_at_ms: row.created_at_ms,
    })
}

/// What a new session holds.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) run_id: i64,
    pub(crate) revision_id: Option<i64>,
    pub(crate) step: u64,
    pub(crate) name: Option<String>,
    pub(crate) state: PushSessionState,
    pub(crate) unchanged: bool,
    pub(crate) manifest_digest: Option<Digest>,
}

/// Adds a session.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: NewSession) -> Result<SessionRow, DbErr> {
    let now = super::now_ms(conn).await?;
    let row = push_session::ActiveModel {
        id: Set(Uuid::now_v7()),
        run_id: Set(new.run_id),
        revision_id: Set(new.revision_id),
        step: Set(super::signed(new.step)),
        state: Set(new.state.as_str().to_owned()),
        unchanged: Set(new.unchanged),
        manifest_digest: Set(new.manifest_digest.as_ref().map(super::blob)),
        received_chunks: Set(0),
        received_bytes: Set(0),
        failure: Set(None),
        created_at_ms: Set(now),
        heartbeat_at_ms: Set(now),
        session_name: Set(new.name),
    };
    session_row(push_session::Entity::insert(row).exec_with_returning(conn).await?)
}

/// A session of a run.
pub(crate) async fn find(conn: &impl ConnectionTrait, run_id: i64, id: Uuid) -> Result<Option<SessionRow>, DbErr> {
    let query = push_session::Entity::find_by_id(id).filter(push_session::Column::RunId.eq(run_id));
    query.one(conn).await?.map(session_row).transpose()
}

/// The open or verifying session for that step and manifest: an interrupted push goes on in it.
pub(crate) async fn find_unfinished(
    conn: &impl ConnectionTrait,
    run_id: i64,
    step: u64,
    manifest: &Digest,
) -> Result<Option<SessionRow>, DbErr> {
    let unfinished = [PushSessionState::Verifying, PushSessionState::Open].map(PushSessionState::as_str);
    let query = push_session::Entity::find()
        .filter(push_session::Column::RunId.eq(run_id))
        .filter(push_session::Column::Step.eq(super::signed(step)))
        .filter(push_session::Column::State.is_in(unfinished))
        .filter(push_session::Column::ManifestDigest.eq(super::blob(manifest)))
        .order_by_desc(push_session::Column::Id);
    query.one(conn).await?.map(session_row).transpose()
}

/// The sessions of that name for the step, the newest first.
fn named(run_id: i64, step: u64, name: &str) -> Select<push_session::Entity> {
    push_session::Entity::find()
        .filter(push_session::Column::RunId.eq(run_id))
        .filter(push_session::Column::Step.eq(super::signed(step)))
        .filter(push_session::Column::SessionName.eq(name))
        .order_by_desc(push_session::Column::Id)
}

/// The newest session of that name for the step that was not given up.
pub(crate) async fn find_named(
    conn: &impl ConnectionTrait,
    run_id: i64,
    step: u64,
    name: &str,
) -> Result<Option<SessionRow>, DbErr> {
    use PushSessionState::{Committed, Open, Verifying};
    let going_on = [Open, Verifying, Committed].map(PushSessionState::as_str);
    let query = named(run_id, step, name).filter(push_session::Column::State.is_in(going_on));
    query.one(conn).await?.map(session_row).transpose()
}

/// The newest session of that name for the step, whatever became of it.
pub(crate) async fn newest_named(
    conn: &impl ConnectionTrait,
    run_id: i64,
    step: u64,
    name: &str,
) -> Result<Option<SessionRow>, DbErr> {
    named(run_id, step, name).one(conn).await?.map(session_row).transpose()
}

/// The session that fills a revision.
pub(crate) async fn of_revision(conn: &impl ConnectionTrait, revision_id: i64) -> Result<Option<SessionRow>, DbErr> {
    let query = push_session::Entity::find().filter(push_session::Column::RevisionId.eq(revision_id));
    query.one(conn).await?.map(session_row).transpose()
}

/// Hears from a session, which must be open; `n_chunks` chunks of `n_bytes` arrived with it.
pub(crate) async fn touch(conn: &impl ConnectionTrait, id: Uuid, n_chunks: u64, n_bytes: u64) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let chunks = Expr::col(push_session::Column::ReceivedChunks).add(super::signed(n_chunks));
    let bytes = Expr::col(push_session::Column::ReceivedBytes).add(super::signed(n_bytes));
    let update = push_session::Entity::update_many()
        .col_expr(push_session::Column::HeartbeatAtMs, Expr::value(now))
        .col_expr(push_session::Column::ReceivedChunks, chunks)
        .col_expr(push_session::Column::ReceivedBytes, bytes)
        .filter(push_session::Column::Id.eq(id))
        .filter(push_session::Column::State.eq(PushSessionState::Open.as_str()));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Moves a session from one state to another; whether it was in the first.
pub(crate) async fn set_state(
    conn: &impl ConnectionTrait,
    id: Uuid,
    from: PushSessionState,
    to: PushSessionState,
) -> Result<bool, DbErr> {
    let update = push_session::Entity::update_many()
        .col_expr(push_session::Column::State, Expr::value(to.as_str()))
        .filter(push_session::Column::Id.eq(id))
        .filter(push_session::Column::State.eq(from.as_str()));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Ends a session: committed with or without a change, or failed for the given reason.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    id: Uuid,
    state: PushSessionState,
    unchanged: bool,
    failure: Option<String>,
) -> Result<(), DbErr> {
    let update = push_session::Entity::update_many()
        .col_expr(push_session::Column::State, Expr::value(state.as_str()))
        .col_expr(push_session::Column::Unchanged, Expr::value(unchanged))
        .col_expr(push_session::Column::Failure, Expr::value(failure))
        .filter(push_session::Column::Id.eq(id));
    update.exec(conn).await.map(|_| ())
}

/// Fixes the manifest that a session commits.
pub(crate) async fn set_manifest(conn: &impl ConnectionTrait, id: Uuid, manifest: &Digest) -> Result<(), DbErr> {
    let update = push_session::Entity::update_many()
        .col_expr(push_session::Column::ManifestDigest, Expr::value(super::blob(manifest)))
        .filter(push_session::Column::Id.eq(id));
    update.exec(conn).await.map(|_| ())
}

/// Lets go of the revision that a session was to fill.
pub(crate) async fn detach(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    let update = push_session::Entity::update_many()
        .col_expr(push_session::Column::RevisionId, Expr::value(None::<i64>))
        .filter(push_session::Column::Id.eq(id));
    update.exec(conn).await.map(|_| ())
}

/// Open sessions that nobody spoke to since `silent_ms`, or that were opened before `opened_ms`.
pub(crate) async fn outlived(
    conn: &impl ConnectionTrait,
    silent_ms: i64,
    opened_ms: i64,
    limit: u64,
) -> Result<Vec<SessionRow>, DbErr> {
    let outlived = Condition::any()
        .add(push_session::Column::HeartbeatAtMs.lt(silent_ms))
        .add(push_session::Column::CreatedAtMs.lt(opened_ms));
    let query = push_session::Entity::find()
        .filter(push_session::Column::State.eq(PushSessionState::Open.as_str()))
        .filter(outlived)
        .limit(limit);
    query.all(conn).await?.into_iter().map(session_row).collect()
}

/// The sessions of a run that are open or verifying.
pub(crate) async fn unfinished(conn: &impl ConnectionTrait, run_id: i64) -> Result<Vec<Uuid>, DbErr> {
    let unfinished = [PushSessionState::Verifying, PushSessionState::Open].map(PushSessionState::as_str);
    let query = push_session::Entity::find()
        .select_only()
        .column(push_session::Column::Id)
        .filter(push_session::Column::RunId.eq(run_id))
        .filter(push_session::Column::State.is_in(unfinished));
    query.into_tuple().all(conn).await
}

/// Aborts all sessions of a run that are open or verifying.
pub(crate) async fn abort_all(conn: &impl ConnectionTrait, run_id: i64) -> Result<(), DbErr> {
    let unfinished = [PushSessionState::Verifying, PushSessionState::Open].map(PushSessionState::as_str);
    let update = push_session::Entity::update_many()
        .col_expr(
            push_session::Column::State,
            Expr::value(PushSessionState::Aborted.as_str()),
        )
        .filter(push_session::Column::RunId.eq(run_id))
        .filter(push_session::Column::State.is_in(unfinished));
    update.exec(conn).await.map(|_| ())
}

/// A file of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionFile {
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) chunks: Vec<ChunkRef>,
}

/// Gives a session a file; the same path again replaces it.
pub(crate) async fn put_file(conn: &impl ConnectionTrait, session_id: Uuid, file: &SessionFile) -> Result<(), DbErr> {
    let row = push_session_file::ActiveModel {
        session_id: Set(session_id),
        path: Set(file.path.clone()),
        digest: Set(super::blob(&file.digest)),
        size_bytes: Set(super::signed(file.size_bytes)),
        recipe: Set(recipe::pack(&file.chunks)),
    };
    let again = OnConflict::columns([push_session_file::Column::SessionId, push_session_file::Column::Path])
        .update_columns([
            push_session_file::Column::Digest,
            push_session_file::Column::SizeBytes,
            push_session_file::Column::Recipe,
        ])
        .to_owned();
    push_session_file::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The digest of the file that a session has at a path.
pub(crate) async fn file_digest(
    conn: &impl ConnectionTrait,
    session_id: Uuid,
    path: &str,
) -> Result<Option<Digest>, DbErr> {
    let found = push_session_file::Entity::find_by_id((session_id, path.to_owned()));
    let row = found.one(conn).await?;
    row.map(|row| super::digest(&row.digest)).transpose()
}

/// How many files a session has.
pub(crate) async fn count_files(conn: &impl ConnectionTrait, session_id: Uuid) -> Result<u64, DbErr> {
    push_session_file::Entity::find()
        .filter(push_session_file::Column::SessionId.eq(session_id))
        .count(conn)
        .await
}

/// A session's files by path.
pub(crate) async fn files(conn: &impl ConnectionTrait, session_id: Uuid) -> Result<Vec<SessionFile>, DbErr> {
    let query = push_session_file::Entity::find()
        .filter(push_session_file::Column::SessionId.eq(session_id))
        .order_by_asc(push_session_file::Column::Path);
    let describe = |row: push_session_file::Model| {
        Ok(SessionFile {
            path: row.path,
            digest: super::digest(&row.digest)?,
            size_bytes: row.size_bytes.unsigned_abs(),
            chunks: recipe::unpack(&row.recipe),
        })
    };
    query.all(conn).await?.into_iter().map(describe).collect()
}
