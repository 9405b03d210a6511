//! Frames and the chunks that point to them.
//!
//! States: `intended` (row before the object) → `live` → `condemned` → `deleting` → gone.

use fineline_format::Digest;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    RelationDef, TryInsertResult,
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

/// A chunk and where its live frame lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRow {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) frame_id: Uuid,
}

fn frame_of_chunk() -> RelationDef {
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
    };
    frame::Entity::insert(row)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// Makes an intended frame the chunk's live one; `false` when another frame is that already, or when a sweep has taken
/// the frame in the meantime.
pub(crate) async fn make_live(
    conn: &impl ConnectionTrait,
    id: Uuid,
    digest: &Digest,
    size_bytes: u64,
) -> Result<bool, DbErr> {
    if !set_state(conn, id, FrameState::Intended, FrameState::Live).await? {
        return Ok(false);
    }
    let row = chunk::ActiveModel {
        digest: Set(super::blob(digest)),
        size_bytes: Set(i64::try_from(size_bytes).unwrap_or(i64::MAX)),
        frame_id: Set(id),
    };
    let inserted = chunk::Entity::insert(row)
        .on_conflict_do_nothing_on([chunk::Column::Digest])
        .exec_without_returning(conn)
        .await?;
    if matches!(inserted, TryInsertResult::Inserted(1)) {
        return Ok(true);
    }
    set_state(conn, id, FrameState::Live, FrameState::Condemned).await?;
    Ok(false)
}

async fn set_state(conn: &impl ConnectionTrait, id: Uuid, from: FrameState, to: FrameState) -> Result<bool, DbErr> {
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(to.as_str()))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::State.eq(from.as_str()));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Marks a frame whose object will be deleted; `false` for a live one, to which a chunk points.
pub(crate) async fn begin_delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let update = frame::Entity::update_many()
        .col_expr(frame::Column::State, Expr::value(FrameState::Deleting.as_str()))
        .filter(frame::Column::Id.eq(id))
        .filter(frame::Column::State.ne(FrameState::Live.as_str()));
    if update.exec(conn).await?.rows_affected == 1 {
        return Ok(true);
    }
    // Without a row the object is an orphan: a sweep took the row while the object was still on its way.
    Ok(frame::Entity::find_by_id(id).one(conn).await?.is_none())
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

/// Chunks ordered by digest, those after `after` only: for walking over all of them.
pub(crate) async fn list_chunks(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<(ChunkRow, Option<String>)>, DbErr> {
    let mut query = chunk::Entity::find()
        .join(JoinType::LeftJoin, frame_of_chunk())
        .select_also(frame::Entity)
        .order_by_asc(chunk::Column::Digest)
        .limit(limit);
    if let Some(after) = after {
        query = query.filter(chunk::Column::Digest.gt(super::blob(after)));
    }
    let rows = query.all(conn).await?;
    rows.iter()
        .map(|(chunk, frame)| Ok((chunk_row(chunk)?, frame.as_ref().map(|f| f.state.clone()))))
        .collect()
}
