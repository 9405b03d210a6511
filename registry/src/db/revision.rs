//! Revisions: what steps point to. How one becomes ready stands in `verification`.

use std::collections::{BTreeMap, HashMap};

use fineline_api::CheckpointState;
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::entity::revision;

/// What the metadata of a revision that came of a source say: its name, a digest of where it is, and the place in it.
pub(crate) const SOURCE: &str = "source";
pub(crate) const SOURCE_LOCATION: &str = "source_location";
pub(crate) const SOURCE_PLACE: &str = "source_place";

/// A revision as the services see it.
#[derive(Debug, Clone)]
pub(crate) struct RevisionRow {
    pub(crate) id: i64,
    pub(crate) run_id: i64,
    pub(crate) step: u64,
    pub(crate) label: Option<String>,
    pub(crate) state: CheckpointState,
    pub(crate) current: bool,
    pub(crate) checkpoint: Option<Digest>,
    pub(crate) weights_digest: Option<Digest>,
    pub(crate) model_digest: Option<Digest>,
    /// The run's default that the model digest was made with, where the checkpoint has no tokenizer.
    pub(crate) tokenizer: Option<Digest>,
    pub(crate) tokens: Option<u64>,
    pub(crate) loss: Option<f64>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tags: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) failure: Option<String>,
    pub(crate) replace: bool,
    pub(crate) created_at_ms: i64,
    pub(crate) ready_at_ms: Option<i64>,
}

impl RevisionRow {
    /// Whether it may take the place of what its step holds with other bytes: where its push said so, and where both came of
    /// one place of one source, the later one of the two.
    pub(crate) fn may_replace(&self, current: &Self) -> bool {
        self.replace || (current.came_of(&self.metadata) && current.id < self.id)
    }

    /// Whether it came of the place of a source that these metadata tell.
    pub(crate) fn came_of(&self, metadata: &BTreeMap<String, String>) -> bool {
        [SOURCE, SOURCE_LOCATION, SOURCE_PLACE]
            .iter()
            .all(|key| self.metadata.contains_key(*key) && self.metadata.get(*key) == metadata.get(*key))
    }
}

pub(super) fn revision_row(row: revision::Model) -> Result<RevisionRow, DbErr> {
    let digest = |blob: Option<Vec<u8>>| blob.as_deref().map(super::digest).transpose();
    Ok(RevisionRow {
        id: row.id,
        run_id: row.run_id,
        step: row.step.unsigned_abs(),
        label: row.label,
        state: row.state.parse().map_err(DbErr::Type)?,
        current: row.current,
        checkpoint: digest(row.checkpoint_digest)?,
        weights_digest: digest(row.weights_digest)?,
        model_digest: digest(row.model_digest)?,
        tokenizer: digest(row.tokenizer_digest)?,
        tokens: row.tokens.map(i64::unsigned_abs),
        loss: row.loss,
        metadata: super::from_json(row.metadata)?,
        tags: super::from_json(row.tags)?,
        warnings: super::from_json(row.warnings)?,
        failure: row.failure,
        replace: row.replace,
        created_at_ms: row.created_at_ms,
        ready_at_ms: row.ready_at_ms,
    })
}

/// What a push says of a new revision.
#[derive(Debug)]
pub(crate) struct NewRevision {
    pub(crate) run_id: i64,
    pub(crate) step: u64,
    pub(crate) label: Option<String>,
    pub(crate) tokens: Option<u64>,
    pub(crate) loss: Option<f64>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tags: Vec<String>,
    pub(crate) replace: bool,
}

/// Adds a revision that receives.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: NewRevision) -> Result<RevisionRow, DbErr> {
    let row = revision::ActiveModel {
        id: NotSet,
        run_id: Set(new.run_id),
        step: Set(super::signed(new.step)),
        label: Set(new.label),
        state: Set(CheckpointState::Receiving.as_str().to_owned()),
        current: Set(false),
        checkpoint_digest: Set(None),
        weights_digest: Set(None),
        model_digest: Set(None),
        tokens: Set(new.tokens.map(super::signed)),
        loss: Set(new.loss),
        metadata: Set(super::to_json(&new.metadata)?),
        tags: Set(super::to_json(&new.tags)?),
        warnings: Set(serde_json::Value::Array(Vec::new())),
        failure: Set(None),
        replace: Set(new.replace),
        created_at_ms: Set(super::now_ms(conn).await?),
        ready_at_ms: Set(None),
        verifier: Set(None),
        verifier_until_ms: Set(None),
        tokenizer_digest: Set(None),
    };
    revision_row(revision::Entity::insert(row).exec_with_returning(conn).await?)
}

/// The revision of that id.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: i64) -> Result<RevisionRow, DbErr> {
    let row = revision::Entity::find_by_id(id).one(conn).await?;
    revision_row(row.ok_or_else(|| DbErr::RecordNotFound(format!("revision {id}")))?)
}

/// Says anew what a push says of a revision that still receives: the last word counts.
pub(crate) async fn update(conn: &impl ConnectionTrait, id: i64, new: &NewRevision) -> Result<(), DbErr> {
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::Label, Expr::value(new.label.clone()))
        .col_expr(revision::Column::Tokens, Expr::value(new.tokens.map(super::signed)))
        .col_expr(revision::Column::Loss, Expr::value(new.loss))
        .col_expr(revision::Column::Metadata, Expr::value(super::to_json(&new.metadata)?))
        .col_expr(revision::Column::Tags, Expr::value(super::to_json(&new.tags)?))
        .col_expr(revision::Column::Replace, Expr::value(new.replace))
        .filter(revision::Column::Id.eq(id))
        .filter(is(CheckpointState::Receiving));
    update.exec(conn).await.map(|_| ())
}

/// Another step of the run that was, or is being, pushed under that spelling.
pub(crate) async fn other_step_of_label(
    conn: &impl ConnectionTrait,
    run_id: i64,
    label: &str,
    step: u64,
) -> Result<Option<u64>, DbErr> {
    let alive = [CheckpointState::Receiving, CheckpointState::Verifying].map(CheckpointState::as_str);
    let query = revision::Entity::find()
        .select_only()
        .column(revision::Column::Step)
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Label.eq(label))
        .filter(revision::Column::Step.ne(super::signed(step)))
        .filter(
            Condition::any()
                .add(is_current())
                .add(revision::Column::State.is_in(alive)),
        );
    let step: Option<i64> = query.into_tuple().one(conn).await?;
    Ok(step.map(i64::unsigned_abs))
}

/// Takes a revision away that never became anything.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: i64) -> Result<(), DbErr> {
    revision::Entity::delete_by_id(id).exec(conn).await.map(|_| ())
}

pub(super) fn is(state: CheckpointState) -> Condition {
    Condition::all().add(revision::Column::State.eq(state.as_str()))
}

/// What a step points to: the current revision, unless it was deleted.
fn is_current() -> Condition {
    is(CheckpointState::Ready).add(revision::Column::Current.eq(true))
}

/// The ready revision that the step of a run points to.
pub(crate) async fn current(conn: &impl ConnectionTrait, run_id: i64, step: u64) -> Result<Option<RevisionRow>, DbErr> {
    let query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Step.eq(super::signed(step)))
        .filter(is_current());
    query.one(conn).await?.map(revision_row).transpose()
}

/// The current revision that was pushed under that spelling, the newest step first.
pub(crate) async fn by_label(
    conn: &impl ConnectionTrait,
    run_id: i64,
    label: &str,
) -> Result<Option<RevisionRow>, DbErr> {
    let query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Label.eq(label))
        .filter(is_current())
        .order_by_desc(revision::Column::Step);
    query.one(conn).await?.map(revision_row).transpose()
}

/// The newest current step of a run, below `before` where that is given.
pub(crate) async fn latest(
    conn: &impl ConnectionTrait,
    run_id: i64,
    before: Option<u64>,
) -> Result<Option<RevisionRow>, DbErr> {
    let mut query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(is_current())
        .order_by_desc(revision::Column::Step);
    if let Some(before) = before {
        query = query.filter(revision::Column::Step.lt(super::signed(before)));
    }
    query.one(conn).await?.map(revision_row).transpose()
}

/// Current steps of the run with these weights, other than `step`.
pub(crate) async fn steps_with_weights(
    conn: &impl ConnectionTrait,
    run_id: i64,
    weights: &Digest,
    step: u64,
) -> Result<Vec<u64>, DbErr> {
    let query = revision::Entity::find()
        .select_only()
        .column(revision::Column::Step)
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::WeightsDigest.eq(super::blob(weights)))
        .filter(is_current())
        .filter(revision::Column::Step.ne(super::signed(step)))
        .order_by_asc(revision::Column::Step)
        .limit(10);
    let steps: Vec<i64> = query.into_tuple().all(conn).await?;
    Ok(steps.into_iter().map(i64::unsigned_abs).collect())
}

/// Writes the model that a ready revision is by another tokenizer.
pub(crate) async fn set_model(conn: &impl ConnectionTrait, row: &RevisionRow) -> Result<(), DbErr> {
    let blob = |digest: &Option<Digest>| digest.as_ref().map(super::blob);
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::ModelDigest, Expr::value(blob(&row.model_digest)))
        .col_expr(revision::Column::TokenizerDigest, Expr::value(blob(&row.tokenizer)))
        .filter(revision::Column::Id.eq(row.id));
    update.exec(conn).await.map(|_| ())
}

/// Current revisions of the run with weights that are no model yet, or one by another lent tokenizer; by step.
pub(crate) async fn to_lend(
    conn: &impl ConnectionTrait,
    run_id: i64,
    tokenizer: &Digest,
) -> Result<Vec<RevisionRow>, DbErr> {
    let by_another = Condition::all()
        .add(revision::Column::TokenizerDigest.is_not_null())
        .add(revision::Column::TokenizerDigest.ne(super::blob(tokenizer)));
    let query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Current.eq(true))
        .filter(is(CheckpointState::Ready))
        .filter(revision::Column::WeightsDigest.is_not_null())
        .filter(
            Condition::any()
                .add(revision::Column::ModelDigest.is_null())
                .add(by_another),
        )
        .order_by_asc(revision::Column::Step);
    query.all(conn).await?.into_iter().map(revision_row).collect()
}

/// The checkpoints of a run's ready revisions with the revisions' ids, behind `after`.
pub(crate) async fn ready_checkpoints(
    conn: &impl ConnectionTrait,
    run_id: i64,
    after: i64,
    limit: u64,
) -> Result<Vec<(i64, Digest)>, DbErr> {
    let query = revision::Entity::find()
        .select_only()
        .columns([revision::Column::Id, revision::Column::CheckpointDigest])
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Id.gt(after))
        .filter(is(CheckpointState::Ready))
        .order_by_asc(revision::Column::Id)
        .limit(limit);
    let rows: Vec<(i64, Vec<u8>)> = query.into_tuple().all(conn).await?;
    rows.into_iter()
        .map(|(id, digest)| Ok((id, super::digest(&digest)?)))
        .collect()
}

/// All ready revisions of a step, or of a checkpoint, the current one first.
pub(crate) async fn ready_ones(
    conn: &impl ConnectionTrait,
    run_id: i64,
    of: Of<'_>,
) -> Result<Vec<RevisionRow>, DbErr> {
    let narrowed = match of {
        Of::Step(step) => revision::Column::Step.eq(super::signed(step)),
        Of::Checkpoint(digest) => revision::Column::CheckpointDigest.eq(super::blob(digest)),
    };
    let query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(narrowed)
        .filter(is(CheckpointState::Ready))
        .order_by_desc(revision::Column::Current)
        .order_by_desc(revision::Column::Id);
    query.all(conn).await?.into_iter().map(revision_row).collect()
}

/// The checkpoints of ready revisions of these steps that are not current, the newest first.
pub(crate) async fn replaced(
    conn: &impl ConnectionTrait,
    run_id: i64,
    steps: &[u64],
) -> Result<HashMap<u64, Vec<Digest>>, DbErr> {
    let mut replaced: HashMap<u64, Vec<Digest>> = HashMap::new();
    for batch in steps.chunks(super::BATCH) {
        let query = revision::Entity::find()
            .select_only()
            .columns([revision::Column::Step, revision::Column::CheckpointDigest])
            .filter(revision::Column::RunId.eq(run_id))
            .filter(revision::Column::Step.is_in(batch.iter().map(|step| super::signed(*step))))
            .filter(revision::Column::Current.eq(false))
            .filter(is(CheckpointState::Ready))
            .order_by_desc(revision::Column::Id);
        let rows: Vec<(i64, Vec<u8>)> = query.into_tuple().all(conn).await?;
        for (step, digest) in rows {
            replaced
                .entry(step.unsigned_abs())
                .or_default()
                .push(super::digest(&digest)?);
        }
    }
    Ok(replaced)
}

/// The current steps of a run with each of these models.
pub(crate) async fn steps_by_model(
    conn: &impl ConnectionTrait,
    run_id: i64,
    models: &[Digest],
) -> Result<HashMap<Digest, Vec<u64>>, DbErr> {
    let mut steps: HashMap<Digest, Vec<u64>> = HashMap::new();
    for batch in models.chunks(super::BATCH) {
        let query = revision::Entity::find()
            .select_only()
            .columns([revision::Column::ModelDigest, revision::Column::Step])
            .filter(revision::Column::RunId.eq(run_id))
            .filter(revision::Column::ModelDigest.is_in(batch.iter().map(super::blob)))
            .filter(is_current())
            .order_by_asc(revision::Column::Step);
        let rows: Vec<(Vec<u8>, i64)> = query.into_tuple().all(conn).await?;
        for (model, step) in rows {
            steps
                .entry(super::digest(&model)?)
                .or_default()
                .push(step.unsigned_abs());
        }
    }
    Ok(steps)
}

/// What revisions are asked for by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    Step(u64),
    Checkpoint(&'a Digest),
}

/// A ready revision is taken away: its step points to nothing readable any more, its scores stay. Whether it was ready.
pub(crate) async fn set_deleted(conn: &impl ConnectionTrait, id: i64) -> Result<bool, DbErr> {
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::State, Expr::value(CheckpointState::Deleted.as_str()))
        .filter(revision::Column::Id.eq(id))
        .filter(is(CheckpointState::Ready));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// A ready revision becomes the one that its step points to, in place of a deleted one.
pub(crate) async fn make_current(conn: &impl ConnectionTrait, row: &RevisionRow) -> Result<(), DbErr> {
    for (current, which) in [
        (false, revision::Column::Id.ne(row.id)),
        (true, revision::Column::Id.eq(row.id)),
    ] {
        let update = revision::Entity::update_many()
            .col_expr(revision::Column::Current, Expr::value(current))
            .filter(revision::Column::RunId.eq(row.run_id))
            .filter(revision::Column::Step.eq(super::signed(row.step)))
            .filter(which);
        update.exec(conn).await?;
    }
    Ok(())
}

/// All revisions of a run are taken away, whatever their state.
pub(crate) async fn set_all_deleted(conn: &impl ConnectionTrait, run_id: i64) -> Result<(), DbErr> {
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::State, Expr::value(CheckpointState::Deleted.as_str()))
        .filter(revision::Column::RunId.eq(run_id));
    update.exec(conn).await.map(|_| ())
}

/// What a list of revisions is narrowed to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RevisionFilter {
    pub(crate) step_min: Option<u64>,
    pub(crate) step_max: Option<u64>,
    /// Only this state; all but deleted ones when absent.
    pub(crate) state: Option<CheckpointState>,
    /// Replaced revisions too.
    pub(crate) all_revisions: bool,
    /// Evaluable ones only.
    pub(crate) evaluable: bool,
    /// Where no state is named, also those that were deleted and that no later one took the place of.
    pub(crate) deleted: bool,
}

/// Revisions of a run by step and age, those after `after` (step, id) only.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    run_id: i64,
    filter: RevisionFilter,
    after: Option<(u64, i64)>,
    limit: u64,
) -> Result<Vec<RevisionRow>, DbErr> {
    let mut query = revision::Entity::find().filter(revision::Column::RunId.eq(run_id));
    query = match filter.state {
        Some(state) => query.filter(is(state)),
        None if filter.deleted => query.filter(
            Condition::any()
                .add(revision::Column::State.ne(CheckpointState::Deleted.as_str()))
                .add(revision::Column::Current.eq(true)),
        ),
        None => query.filter(revision::Column::State.ne(CheckpointState::Deleted.as_str())),
    };
    if let Some(min) = filter.step_min {
        query = query.filter(revision::Column::Step.gte(super::signed(min)));
    }
    if let Some(max) = filter.step_max {
        query = query.filter(revision::Column::Step.lte(super::signed(max)));
    }
    if filter.evaluable {
        query = query.filter(revision::Column::ModelDigest.is_not_null());
    }
    if !filter.all_revisions {
        let unpublished = revision::Column::State.ne(CheckpointState::Ready.as_str());
        query = query.filter(
            Condition::any()
                .add(revision::Column::Current.eq(true))
                .add(unpublished),
        );
    }
    if let Some((step, id)) = after {
        let step = super::signed(step);
        let same_step = Condition::all()
            .add(revision::Column::Step.eq(step))
            .add(revision::Column::Id.gt(id));
        query = query.filter(Condition::any().add(revision::Column::Step.gt(step)).add(same_step));
    }
    let query = query
        .order_by_asc(revision::Column::Step)
        .order_by_asc(revision::Column::Id)
        .limit(limit);
    query.all(conn).await?.into_iter().map(revision_row).collect()
}

#[cfg(test)]
mod tests {
    use fineline_api::run::RunAttributes;

    use super::*;
    use crate::db::{self, Db};
    use crate::tests::fixture::database_of;

    #[tokio::test]
    async fn of_two_that_came_of_one_place_the_later_replaces_the_earlier() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let txn = db::write_txn(&db).await.unwrap();
        let (name, attributes) = ("lab/run".parse().unwrap(), RunAttributes::default());
        let run = db::run::insert(&txn, &name, &attributes).await.unwrap().unwrap().id;
        let pushed = async |place: Option<&str>, replace| {
            let origin = |place: &str| {
                let origin = [(SOURCE, "s"), (SOURCE_LOCATION, "l"), (SOURCE_PLACE, place)];
                BTreeMap::from(origin.map(|(key, value)| (key.to_owned(), value.to_owned())))
            };
            let new = NewRevision {
                run_id: run,
                step: 1,
                label: None,
                tokens: None,
                loss: None,
                metadata: place.map(origin).unwrap_or_default(),
                tags: Vec::new(),
                replace,
            };
            insert(&txn, new).await.unwrap()
        };
        let (first, second) = (pushed(Some("a"), false).await, pushed(Some("a"), false).await);
        let (other, plain) = (pushed(Some("b"), false).await, pushed(None, false).await);
        assert!(second.may_replace(&first) && !first.may_replace(&second));
        assert!(
            !other.may_replace(&first) && !plain.may_replace(&first) && !pushed(None, false).await.may_replace(&plain)
        );
        assert!(pushed(None, true).await.may_replace(&first));
    }
}
