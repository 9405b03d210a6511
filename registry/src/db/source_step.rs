//! The checkpoints of sources, and how far each is. The tokenizer that a source borrows has a row too, and no state of its own.

use std::collections::BTreeMap;

use fineline_api::{SourceStep, SourceStepState};
use fineline_format::Digest;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::entity::source_step;

/// What the place of a borrowed tokenizer begins with, and no checkpoint's.
pub(crate) const TOKENIZER: &str = "tokenizer:";

/// A checkpoint of a source as the services see it.
#[derive(Debug, Clone)]
pub(crate) struct StepRow {
    /// Where in the source.
    pub(crate) place: String,
    /// All that is shown of it.
    pub(crate) shown: SourceStep,
    /// What the place called its contents when they were listed last.
    pub(crate) version: String,
    /// Over the paths, sizes and versions of the files that come in.
    pub(crate) fingerprint: Digest,
    /// Since when the fingerprint is so.
    pub(crate) since_ms: i64,
    /// For how long it has to be so before it counts as whole.
    pub(crate) settle_ms: i64,
    /// What the place calls its marker file, where it has one.
    pub(crate) marker: Option<String>,
    /// Over the digests of its weights' files, where the place tells them.
    pub(crate) weights: Option<Digest>,
    /// The fingerprint that came in.
    pub(crate) ready_fingerprint: Option<Digest>,
    /// Attempts that failed since it changed last.
    pub(crate) n_failures: u64,
    /// Until when the next attempt waits.
    pub(crate) retry_at_ms: Option<i64>,
}

fn step_row(row: source_step::Model) -> Result<StepRow, DbErr> {
    Ok(StepRow {
        place: row.place,
        shown: super::from_json(row.shown)?,
        version: row.version,
        fingerprint: super::digest(&row.fingerprint)?,
        since_ms: row.since_ms,
        settle_ms: row.settle_ms,
        marker: row.marker,
        weights: row.weights.as_deref().map(super::digest).transpose()?,
        ready_fingerprint: row.ready_fingerprint.as_deref().map(super::digest).transpose()?,
        n_failures: row.n_failures.unsigned_abs(),
        retry_at_ms: row.retry_at_ms,
    })
}

/// Writes down how far a checkpoint is.
pub(crate) async fn put(conn: &impl ConnectionTrait, source_id: i64, row: &StepRow) -> Result<(), DbErr> {
    use source_step::Column::{
        Fingerprint, Marker, NFailures, Place, ReadyFingerprint, RetryAtMs, SettleMs, Shown, SinceMs, SourceId, State,
        Step, Version, Weights,
    };
    let model = source_step::ActiveModel {
        source_id: Set(source_id),
        place: Set(row.place.clone()),
        state: Set(row.shown.state.as_str().to_owned()),
        step: Set(row.shown.step.map(super::signed)),
        shown: Set(super::to_json(&row.shown)?),
        version: Set(row.version.clone()),
        fingerprint: Set(super::blob(&row.fingerprint)),
        since_ms: Set(row.since_ms),
        settle_ms: Set(row.settle_ms),
        marker: Set(row.marker.clone()),
        weights: Set(row.weights.as_ref().map(super::blob)),
        ready_fingerprint: Set(row.ready_fingerprint.as_ref().map(super::blob)),
        n_failures: Set(super::signed(row.n_failures)),
        retry_at_ms: Set(row.retry_at_ms),
    };
    let again = OnConflict::columns([SourceId, Place])
        .update_columns([
            State,
            Step,
            Shown,
            Version,
            Fingerprint,
            SinceMs,
            SettleMs,
            Marker,
            Weights,
            ReadyFingerprint,
            NFailures,
            RetryAtMs,
        ])
        .to_owned();
    let insert = source_step::Entity::insert(model).on_conflict(again);
    insert.exec_without_returning(conn).await.map(drop)
}

/// The checkpoints of a source: by step, those without one last.
pub(crate) async fn list(conn: &impl ConnectionTrait, source_id: i64) -> Result<Vec<StepRow>, DbErr> {
    let query = source_step::Entity::find()
        .filter(source_step::Column::SourceId.eq(source_id))
        .order_by_asc(source_step::Column::Place);
    let rows = query.all(conn).await?;
    let mut rows = rows.into_iter().map(step_row).collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|row| (row.shown.step.is_none(), row.shown.step));
    Ok(rows)
}

/// How often the checkpoint of that place failed.
pub(crate) async fn n_failures(conn: &impl ConnectionTrait, source_id: i64, place: &str) -> Result<u64, DbErr> {
    let row = source_step::Entity::find_by_id((source_id, place.to_owned()))
        .one(conn)
        .await?;
    Ok(row.map_or(0, |row| row.n_failures.unsigned_abs()))
}

/// How many checkpoints of a source are how far; a tokenizer is none.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    source_id: i64,
) -> Result<BTreeMap<SourceStepState, u64>, DbErr> {
    let query = source_step::Entity::find()
        .select_only()
        .column(source_step::Column::State)
        .column_as(source_step::Column::Place.count(), "n")
        .filter(source_step::Column::SourceId.eq(source_id))
        .filter(source_step::Column::Place.not_like(format!("{TOKENIZER}%")))
        .group_by(source_step::Column::State);
    let rows: Vec<(String, i64)> = query.into_tuple().all(conn).await?;
    let count = |(state, n): (String, i64)| Ok((state.parse().map_err(DbErr::Type)?, n.unsigned_abs()));
    rows.into_iter().map(count).collect()
}

/// Lets what failed be tried at once and as often as the first time.
pub(crate) async fn forget_failures(conn: &impl ConnectionTrait, source_id: i64) -> Result<(), DbErr> {
    let update = source_step::Entity::update_many()
        .col_expr(source_step::Column::NFailures, Expr::value(0))
        .col_expr(source_step::Column::RetryAtMs, Expr::value(None::<i64>))
        .filter(source_step::Column::SourceId.eq(source_id));
    update.exec(conn).await.map(drop)
}

/// Forgets checkpoints that are not in the source any more.
pub(crate) async fn forget(conn: &impl ConnectionTrait, source_id: i64, places: &[String]) -> Result<(), DbErr> {
    for batch in places.chunks(super::BATCH) {
        let delete = source_step::Entity::delete_many()
            .filter(source_step::Column::SourceId.eq(source_id))
            .filter(source_step::Column::Place.is_in(batch.iter().cloned()));
        delete.exec(conn).await?;
    }
    Ok(())
}
