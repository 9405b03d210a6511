//! Frames and the chunks that point to them.
//!
//! States: `intended` (row before the object) → `live` → `condemned` → `deleting` → gone. A condemned frame still holds
//! its chunk and is revived by whoever needs it; with `deleting` the chunk's row is gone, so that it counts as missing.
//! Which frames are condemned, and when they go, stands in `collect`.

use std::collections::HashMap;

use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, JoinType, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, RelationDef, UpdateMany,
};
use uuid::Uuid;

use super::entity::{chunk, frame};

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameState {
    Intended,
    Live,
    Condemned,
    Deleting,
}

impl FrameState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Live => "live",
            Self::Condemned => "condemned",
            Self::Deleting => "deleting",
        }
    }
}

/// A chunk and the frame that holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRow {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) frame_id: Uuid,
    /// Whether the frame is known not to hold the chunk: it counts as missing, and the next put replaces it.
    pub(crate) damaged: bool,
}

pub(super) fn frame_of_chunk() -> RelationDef {
    chunk::Entity::belongs_to(frame::Entity)
        .from(chunk::Column::FrameId)
        .to(frame::Column::Id)
        .into()
}

fn chunk_row(row: &chunk::Model) -> Result<ChunkRow, DbErr> {
    Ok(ChunkRow {
        digest: super::digest(&row.digest)?,
        size_bytes: row.size_bytes.unsigned_abs(),
        frame_id: row.frame_id,
        damaged: row.damaged_at_ms.is_some(),
    })
}

/// Writes down that an object of that id will be put.
pub(crate) async fn intend(conn: &impl ConnectionTrait, id: Uuid, chunk: &Digest, stored: usize) -> Result<(), DbErr> {
    let row = frame::ActiveModel {
        id: Set(id),
        chunk_digest: Set(super::blob(chunk)),
        state: Set(FrameState::Intended.as_str().to_owned()),
        stored_bytes: Set(i64::try_from(stored).unwrap_or(i64::MAX)),
        created_at_ms: Set(super::now_ms(conn).await?),
        condemned_at_ms: Set(None),
    };
    frame::Entity::insert(row)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// How a chunk came to its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attached {
    /// The new frame holds it now.
    New,
    /// A frame that was there holds it; a new one is superfluous.
    Held,
    /// Nothing holds it: what did, or the new frame, was swept in the meantime.
    Gone,
}

/// Makes sure that a live frame holds the chunk: the one that does, revived where it is condemned, or `new`, an intended
/// frame whose object was written, which takes the place of a damaged one.
pub(crate) async fn attach(
    conn: &impl ConnectionTrait,
    new: Option<Uuid>,
    digest: &Digest,
    size_bytes: u64,
) -> Result<Attached, DbErr> {
    let held = find_chunk(conn, digest).await?;
    if let Some(chunk) = held
        && !chunk.damaged
        && revive(conn, chunk.frame_id, digest).await?
    {
        return Ok(Attached::Held);
    }
    let Some(id) = new else {
        return Ok(Attached::Gone);
    };
    if !set_state(conn, id, FrameState::Intended, FrameState::Live).await? {
        return Ok(Attached::Gone);
    }
    let row = chunk::ActiveModel {
        digest: Set(super::blob(digest)),
        size_bytes: Set(super::signed(size_bytes)),
        frame_id: Set(id),
        damaged_at_ms: Set(None),
    };
    let replace = OnConflict::column(chunk::Column::Digest)
        .update_columns([
            chunk::Column::SizeBytes,
            chunk::Column::FrameId,
            chunk::Column::DamagedAtMs,
        ])
        .to_owned();
    chunk::Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(conn)
        .await?;
    if let Some(old) = held {
        condemn_replaced(conn, old.frame_id, digest).await?;
    }
    Ok(Attached::New)
}

/// Keeps the frame that holds a chunk from being collected; `false` when it is no frame of that chunk, or is going.
async fn revive(conn: &impl ConnectionTrait, id: Uuid, chunk: &Digest) -> Result<bool, DbErr> {
    let alive = [FrameState::Live, FrameState::Condemned].map(FrameState::as_str);
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(FrameState::Live.as_str()))
        .col_expr(frame::Column::CondemnedAtMs, Expr::value(None::<i64>))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::ChunkDigest.eq(super::blob(chunk)))
        .filter(frame::Column::State.is_in(alive));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Condemns a frame that held a chunk until now; one that was made for another chunk is left to that.
async fn condemn_replaced(conn: &impl ConnectionTrait, id: Uuid, chunk: &Digest) -> Result<(), DbErr> {
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(FrameState::Condemned.as_str()))
        .col_expr(frame::Column::CondemnedAtMs, Expr::value(super::now_ms(conn).await?))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::ChunkDigest.eq(super::blob(chunk)))
        .filter(frame::Column::State.eq(FrameState::Live.as_str()));
    update.exec(conn).await.map(|_| ())
}

/// The condemned frames that hold these chunks. They are found in the index of condemned frames, which is nearly always empty,
/// so the state must not offer an index of its own: it is not compared for being equal.
fn condemned_of(digests: &[Digest]) -> Condition {
    let mut frames = sea_orm::sea_query::Query::select();
    frames
        .column(chunk::Column::FrameId)
        .from(chunk::Entity)
        .and_where(chunk::Column::Digest.is_in(digests.iter().map(super::blob)));
    Condition::all()
        .add(frame::Column::CondemnedAtMs.is_not_null())
        .add(frame::Column::ChunkDigest.is_in(digests.iter().map(super::blob)))
        .add(frame::Column::State.ne(FrameState::Deleting.as_str()))
        .add(frame::Column::Id.in_subquery(frames))
}

fn revival(digests: &[Digest]) -> UpdateMany<frame::Entity> {
    frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(FrameState::Live.as_str()))
        .col_expr(frame::Column::CondemnedAtMs, Expr::value(None::<i64>))
        .filter(condemned_of(digests))
}

/// Revives the frames of these chunks and gives those of them that a sound frame holds, with their raw sizes.
pub(crate) async fn revive_many(
    conn: &impl ConnectionTrait,
    digests: &[Digest],
) -> Result<HashMap<Digest, u64>, DbErr> {
    for batch in digests.chunks(super::BATCH) {
        revival(batch).exec(conn).await?;
    }
    stored(conn, digests).await
}

/// The raw sizes of those of `digests` that a frame holds which is not known to be damaged.
pub(crate) async fn stored(conn: &impl ConnectionTrait, digests: &[Digest]) -> Result<HashMap<Digest, u64>, DbErr> {
    let ask = |batch: Vec<Digest>| async move {
        let query = chunk::Entity::find()
            .select_only()
            .columns([chunk::Column::Digest, chunk::Column::SizeBytes])
            .filter(chunk::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(chunk::Column::DamagedAtMs.is_null());
        query.into_tuple().all(conn).await
    };
    let rows: Vec<(Vec<u8>, i64)> = super::batches::ask(digests, ask).await?;
    let describe = |(row, size_bytes): &(Vec<u8>, i64)| Ok((super::digest(row)?, size_bytes.unsigned_abs()));
    rows.iter().map(describe).collect()
}

/// Whether one of these chunks lies in a condemned frame.
pub(crate) async fn any_condemned(conn: &impl ConnectionTrait, digests: &[Digest]) -> Result<bool, DbErr> {
    for batch in digests.chunks(super::BATCH) {
        let query = frame::Entity::find().filter(condemned_of(batch));
        if query.count(conn).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says whether the frame is known not to hold the chunk; nothing happens when another frame does by now.
pub(crate) async fn set_damaged(
    conn: &impl ConnectionTrait,
    digest: &Digest,
    frame_id: Uuid,
    damaged: bool,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let update = chunk::Entity::update_many()
        .col_expr(chunk::Column::DamagedAtMs, Expr::value(damaged.then_some(now)))
        .filter(chunk::Column::Digest.eq(super::blob(digest)))
        .filter(chunk::Column::FrameId.eq(frame_id));
    update.exec(conn).await.map(|_| ())
}

async fn set_state(conn: &impl ConnectionTrait, id: Uuid, from: FrameState, to: FrameState) -> Result<bool, DbErr> {
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(to.as_str()))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::State.eq(from.as_str()));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Marks a frame to which no chunk points, so that its object can be deleted; `false` for one that is live or needed.
pub(crate) async fn begin_delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(FrameState::Deleting.as_str()))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::State.ne(FrameState::Live.as_str()))
        .filter(frame::Column::Id.not_in_subquery(pointed_to(id)));
    if update.exec(conn).await?.rows_affected == 1 {
        return Ok(true);
    }
    // Without a row the object is an orphan: a sweep took the row while the object was still on its way.
    Ok(frame::Entity::find_by_id(id).one(conn).await?.is_none())
}

fn pointed_to(id: Uuid) -> sea_orm::sea_query::SelectStatement {
    sea_orm::sea_query::Query::select()
        .column(chunk::Column::FrameId)
        .from(chunk::Entity)
        .and_where(chunk::Column::FrameId.eq(id))
        .to_owned()
}

/// Forgets a frame whose object is gone.
pub(crate) async fn forget(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    frame::Entity::delete_by_id(id).exec(conn).await.map(|_| ())
}

/// Frames in `state` that are older than `before_ms`, the oldest first.
pub(crate) async fn older_than(
    conn: &impl ConnectionTrait,
    state: FrameState,
    before_ms: i64,
    limit: u64,
) -> Result<Vec<Uuid>, DbErr> {
    let query = frame::Entity::find()
        .select_only()
        .column(frame::Column::Id)
        .filter(frame::Column::State.eq(state.as_str()))
        .filter(frame::Column::CreatedAtMs.lt(before_ms))
        .order_by_asc(frame::Column::CreatedAtMs)
        .limit(limit);
    query.into_tuple().all(conn).await
}

/// The chunk of that digest, when it is held.
pub(crate) async fn find_chunk(conn: &impl ConnectionTrait, digest: &Digest) -> Result<Option<ChunkRow>, DbErr> {
    let row = chunk::Entity::find_by_id(super::blob(digest)).one(conn).await?;
    row.as_ref().map(chunk_row).transpose()
}

/// How many frames are in a state.
#[cfg(test)]
pub(crate) async fn count(conn: &impl ConnectionTrait, state: &str) -> Result<u64, DbErr> {
    let query = frame::Entity::find().filter(frame::Column::State.eq(state));
    query.count(conn).await
}

/// A frame as `fsck` sees it.
#[derive(Debug, Clone)]
pub(crate) struct FrameRow {
    /// The chunk that it was made for.
    pub(crate) chunk: Digest,
    pub(crate) state: String,
    pub(crate) stored_bytes: u64,
}

/// Whether a frame that was made for the chunk holds it, as far as is known.
pub(crate) async fn is_held(conn: &impl ConnectionTrait, digest: &Digest) -> Result<bool, DbErr> {
    let alive = [FrameState::Live, FrameState::Condemned].map(FrameState::as_str);
    let query = chunk::Entity::find()
        .join(JoinType::InnerJoin, frame_of_chunk())
        .filter(chunk::Column::Digest.eq(super::blob(digest)))
        .filter(chunk::Column::DamagedAtMs.is_null())
        .filter(frame::Column::ChunkDigest.eq(super::blob(digest)))
        .filter(frame::Column::State.is_in(alive));
    Ok(query.count(conn).await? > 0)
}

/// The live frames of those of `digests` that are not known to be damaged: chunk, frame, stored bytes. Of one in any
/// other state nobody can say how long it stays.
pub(crate) async fn live(conn: &impl ConnectionTrait, digests: &[Digest]) -> Result<Vec<(Digest, Uuid, u64)>, DbErr> {
    let mut live = Vec::new();
    for batch in digests.chunks(super::BATCH) {
        let query = chunk::Entity::find()
            .join(JoinType::InnerJoin, frame_of_chunk())
            .select_only()
            .column(chunk::Column::Digest)
            .column(frame::Column::Id)
            .column(frame::Column::StoredBytes)
            .filter(chunk::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(chunk::Column::DamagedAtMs.is_null())
            .filter(frame::Column::State.eq(FrameState::Live.as_str()));
        let rows: Vec<(Vec<u8>, Uuid, i64)> = query.into_tuple().all(conn).await?;
        for (digest, id, stored_bytes) in rows {
            live.push((super::digest(&digest)?, id, stored_bytes.unsigned_abs()));
        }
    }
    Ok(live)
}

/// Chunks ordered by digest with their frames, those after `after` only: for walking over all of them.
pub(crate) async fn list_chunks(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<(ChunkRow, Option<FrameRow>)>, DbErr> {
    let mut query = chunk::Entity::find()
        .join(JoinType::LeftJoin, frame_of_chunk())
        .select_also(frame::Entity)
        .order_by_asc(chunk::Column::Digest)
        .limit(limit);
    if let Some(after) = after {
        query = query.filter(chunk::Column::Digest.gt(super::blob(after)));
    }
    let describe = |frame: frame::Model| {
        Ok::<_, DbErr>(FrameRow {
            chunk: super::digest(&frame.chunk_digest)?,
            state: frame.state,
            stored_bytes: frame.stored_bytes.unsigned_abs(),
        })
    };
    let rows = query.all(conn).await?;
    rows.into_iter()
        .map(|(chunk, frame)| Ok((chunk_row(&chunk)?, frame.map(describe).transpose()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use sea_orm::{DbBackend, QueryTrait as _};

    use super::*;
    use crate::db::sqlite::tests::{given, plan};
    use crate::db::{self, Db, collect};
    use crate::tests::fixture::database_of;

    #[tokio::test]
    async fn the_frame_that_holds_a_chunk_is_revived_and_not_the_damaged_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let txn = db::write_txn(&db).await.unwrap();
        let chunk = Digest::of(b"a");
        let put = async || {
            let id = Uuid::now_v7();
            intend(&txn, id, &chunk, 1).await.unwrap();
            assert_eq!(attach(&txn, Some(id), &chunk, 1).await.unwrap(), Attached::New);
            id
        };
        let damaged = put().await;
        set_damaged(&txn, &chunk, damaged, true).await.unwrap();
        let sound = put().await;
        let condemned = async || count(&txn, FrameState::Condemned.as_str()).await.unwrap();

        assert_eq!(condemned().await, 1, "the damaged one");
        assert!(!any_condemned(&txn, &[chunk]).await.unwrap());
        collect::condemn(&txn, &[sound]).await.unwrap();
        assert!(any_condemned(&txn, &[chunk]).await.unwrap());
        assert_eq!(revive_many(&txn, &[chunk]).await.unwrap().len(), 1);
        assert_eq!(condemned().await, 1, "the damaged one");
    }

    #[tokio::test]
    async fn what_is_revived_is_found_among_the_condemned_alone_on_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        let db = given(dir.path()).await;
        let plan = plan(
            &db,
            revival(&[Digest::of(b"a"), Digest::of(b"b")]).build(DbBackend::Sqlite),
        )
        .await;
        let searched = "SEARCH frame USING INDEX frame_condemned_chunk (chunk_digest=?)";
        assert_eq!(plan[0], searched, "{plan:#?}");
    }
}
