//! Sources. Which of their checkpoints are how far stands in `source_step`, what was read of their files in `source_file`.

use fineline_api::{CreateSource, SourceState};
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use uuid::Uuid;

use super::entity::{run, source};

/// A source as the services see it.
#[derive(Clone)]
pub(crate) struct SourceRow {
    pub(crate) id: i64,
    pub(crate) run_id: i64,
    /// What it was made with; its secrets are absent there.
    pub(crate) definition: CreateSource,
    pub(crate) secret: Option<String>,
    pub(crate) webhook_secret_sha256: Option<Digest>,
    pub(crate) state: SourceState,
    pub(crate) created_at_ms: i64,
    pub(crate) synced_at_ms: Option<i64>,
    pub(crate) next_sync_at_ms: Option<i64>,
    /// Until when somebody looks at it, where somebody does.
    pub(crate) claimed_until_ms: Option<i64>,
    /// Why the last look failed as a whole.
    pub(crate) error: Option<String>,
}

impl std::fmt::Debug for SourceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRow")
            .field("id", &self.id)
            .field("name", &self.definition.name)
            .finish_non_exhaustive()
    }
}

fn source_row(row: source::Model) -> Result<SourceRow, DbErr> {
    Ok(SourceRow {
        id: row.id,
        run_id: row.run_id,
        definition: super::from_json(row.definition)?,
        secret: row.secret,
        webhook_secret_sha256: row.webhook_secret_sha256.as_deref().map(super::digest).transpose()?,
        state: row.state.parse().map_err(DbErr::Type)?,
        created_at_ms: row.created_at_ms,
        synced_at_ms: row.synced_at_ms,
        next_sync_at_ms: row.next_sync_at_ms,
        claimed_until_ms: row.syncer_until_ms,
        error: row.error,
    })
}

/// Adds a source that is looked at at once; `None` when the name is taken.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    run_id: i64,
    mut new: CreateSource,
) -> Result<Option<SourceRow>, DbErr> {
    // Asked first: on PostgreSQL a statement that fails ends its transaction.
    if find(conn, &new.name).await?.is_some() {
        return Ok(None);
    }
    let now = super::now_ms(conn).await?;
    let (secret, webhook_secret) = (new.secret.take(), new.webhook_secret.take());
    let row = source::ActiveModel {
        id: NotSet,
        name: Set(new.name.clone()),
        run_id: Set(run_id),
        definition: Set(super::to_json(&new)?),
        secret: Set(secret),
        webhook_secret_sha256: Set(webhook_secret.map(|secret| super::blob(&Digest::of(secret.as_bytes())))),
        state: Set(SourceState::Active.as_str().to_owned()),
        created_at_ms: Set(now),
        synced_at_ms: Set(None),
        next_sync_at_ms: Set(Some(now)),
        error: Set(None),
        syncer: Set(None),
        syncer_until_ms: Set(None),
    };
    let row = source::Entity::insert(row).exec_with_returning(conn).await?;
    source_row(row).map(Some)
}

/// The source of that name.
pub(crate) async fn find(conn: &impl ConnectionTrait, name: &str) -> Result<Option<SourceRow>, DbErr> {
    let query = source::Entity::find().filter(source::Column::Name.eq(name));
    query.one(conn).await?.map(source_row).transpose()
}

/// All sources, by name.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<SourceRow>, DbErr> {
    let query = source::Entity::find().order_by_asc(source::Column::Name);
    query.all(conn).await?.into_iter().map(source_row).collect()
}

/// Says what a source is about to do; one that becomes active is looked at at once, whatever failed before.
pub(crate) async fn set_state(conn: &impl ConnectionTrait, id: i64, state: SourceState) -> Result<(), DbErr> {
    let next = match state {
        SourceState::Active => Some(super::now_ms(conn).await?),
        SourceState::Paused | SourceState::Done => None,
    };
    let update = source::Entity::update_many()
        .col_expr(source::Column::State, Expr::value(state.as_str()))
        .col_expr(source::Column::NextSyncAtMs, Expr::value(next))
        .filter(source::Column::Id.eq(id));
    update.exec(conn).await?;
    if state == SourceState::Active {
        super::source_step::forget_failures(conn, id).await?;
    }
    Ok(())
}

/// Lets a source that is not paused be looked at at `at_ms`.
pub(crate) async fn hear(conn: &impl ConnectionTrait, id: i64, at_ms: i64) -> Result<(), DbErr> {
    let update = source::Entity::update_many()
        .col_expr(source::Column::State, Expr::value(SourceState::Active.as_str()))
        .col_expr(source::Column::NextSyncAtMs, Expr::value(at_ms))
        .filter(source::Column::Id.eq(id))
        .filter(source::Column::State.ne(SourceState::Paused.as_str()));
    update.exec(conn).await.map(drop)
}

/// Forgets a source with all that is known of its checkpoints; the steps that came of it stay.
pub(crate) async fn remove(conn: &impl ConnectionTrait, id: i64) -> Result<(), DbErr> {
    source::Entity::delete_by_id(id).exec(conn).await.map(drop)
}

/// The sources that are due and that nobody looks at.
fn due(now: i64) -> Select<source::Entity> {
    let free = Condition::any()
        .add(source::Column::SyncerUntilMs.is_null())
        .add(source::Column::SyncerUntilMs.lt(now));
    source::Entity::find()
        .filter(source::Column::State.eq(SourceState::Active.as_str()))
        .filter(source::Column::NextSyncAtMs.lte(now))
        .filter(free)
}

/// Whether there is something to claim.
pub(crate) async fn any_due(conn: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    Ok(due(now).one(conn).await?.is_some())
}

/// Takes the source that is due for longest and that nobody looks at, for `lease_ms`. `syncer` is of this claim alone: a
/// server that lost one does not take its own next one for it.
pub(crate) async fn claim(
    conn: &impl ConnectionTrait,
    syncer: Uuid,
    lease_ms: i64,
) -> Result<Option<SourceRow>, DbErr> {
    let now = super::now_ms(conn).await?;
    let picked = due(now).order_by_asc(source::Column::NextSyncAtMs).one(conn).await?;
    let Some(picked) = picked else { return Ok(None) };
    let update = source::Entity::update_many()
        .col_expr(source::Column::Syncer, Expr::value(syncer))
        .col_expr(source::Column::SyncerUntilMs, Expr::value(now + lease_ms))
        .filter(source::Column::Id.eq(picked.id));
    update.exec(conn).await?;
    source_row(picked).map(Some)
}

/// Keeps a claim for `lease_ms` more; `false` when it is another's by now, when the source is gone or not active any more,
/// and when its run was deleted.
/// Called in the transaction that writes something of a source, it is the check that this is the caller's to write.
pub(crate) async fn renew(conn: &impl ConnectionTrait, id: i64, syncer: Uuid, lease_ms: i64) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let alive = run::Entity::find()
        .select_only()
        .column(run::Column::Id)
        .filter(run::Column::DeletedAtMs.is_null());
    let update = source::Entity::update_many()
        .col_expr(source::Column::SyncerUntilMs, Expr::value(now + lease_ms))
        .filter(source::Column::Id.eq(id))
        .filter(source::Column::Syncer.eq(syncer))
        .filter(source::Column::State.eq(SourceState::Active.as_str()))
        .filter(source::Column::RunId.in_subquery(alive.into_query()));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Ends a look at a source: why it failed, and in how many milliseconds the next one is; never when absent,
/// which makes the source done. A wish for a look that came meanwhile (`next_sync_at_ms` is not any more what it was) stays,
/// and of a source that was paused meanwhile nothing is said.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    row: &SourceRow,
    syncer: Uuid,
    error: Option<&str>,
    next_in_ms: Option<i64>,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let claimed = || {
        source::Entity::update_many()
            .filter(source::Column::Id.eq(row.id))
            .filter(source::Column::Syncer.eq(syncer))
    };
    let is_active = || source::Column::State.eq(SourceState::Active.as_str());
    let looked = claimed()
        .col_expr(source::Column::SyncedAtMs, Expr::value(now))
        .col_expr(source::Column::Error, Expr::value(error))
        .filter(is_active());
    looked.exec(conn).await?;
    let after = match next_in_ms {
        Some(_) => SourceState::Active,
        None => SourceState::Done,
    };
    let next = claimed()
        .col_expr(source::Column::NextSyncAtMs, Expr::value(next_in_ms.map(|ms| now + ms)))
        .col_expr(source::Column::State, Expr::value(after.as_str()))
        .filter(is_active())
        .filter(source::Column::NextSyncAtMs.eq(row.next_sync_at_ms));
    next.exec(conn).await.map(drop)
}

/// Ends a claim, unless it is another's by now.
pub(crate) async fn free(conn: &impl ConnectionTrait, id: i64, syncer: Uuid) -> Result<(), DbErr> {
    let free = source::Entity::update_many()
        .col_expr(source::Column::Syncer, Expr::value(None::<Uuid>))
        .col_expr(source::Column::SyncerUntilMs, Expr::value(None::<i64>))
        .filter(source::Column::Id.eq(id))
        .filter(source::Column::Syncer.eq(syncer));
    free.exec(conn).await.map(drop)
}

/// A source that is a folder and was never looked at.
#[cfg(test)]
pub(crate) fn folder() -> SourceRow {
    let location = fineline_api::SourceLocation::Folder { path: "/x".to_owned() };
    let definition = CreateSource::new("s", "lab/run".parse().expect("a name"), location);
    SourceRow {
        id: 1,
        run_id: 1,
        definition,
        secret: None,
        webhook_secret_sha256: None,
        state: SourceState::Active,
        created_at_ms: 0,
        synced_at_ms: None,
        next_sync_at_ms: None,
        claimed_until_ms: None,
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use fineline_api::SourceStep;
    use fineline_api::run::RunAttributes;
    use fineline_api::source::SourceStepState;

    use super::*;
    use crate::db::source_step::StepRow;
    use crate::db::{self, Db, source_step};
    use crate::tests::fixture::database_of;

    fn failed_step() -> StepRow {
        let shown = SourceStep {
            name: "step-1".to_owned(),
            step: Some(1),
            step_inferred: false,
            step_unsnapped: None,
            tokens: None,
            n_files: 1,
            size_bytes: 1,
            held_bytes: 0,
            state: SourceStepState::Failed,
            message: None,
            warnings: Vec::new(),
            checkpoint: None,
        };
        StepRow {
            place: "step-1".to_owned(),
            shown,
            version: String::new(),
            fingerprint: Digest::of(b"x"),
            since_ms: 0,
            settle_ms: 0,
            marker: None,
            weights: None,
            ready_fingerprint: None,
            n_failures: 8,
            retry_at_ms: Some(i64::MAX),
        }
    }

    #[tokio::test]
    async fn a_claim_is_one_looks_and_ends_with_pause_and_run() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let txn = db::write_txn(&db).await.unwrap();
        let (name, attributes) = ("lab/run".parse().unwrap(), RunAttributes::default());
        let run = db::run::insert(&txn, &name, &attributes).await.unwrap().unwrap().id;
        let made = insert(&txn, run, folder().definition).await.unwrap().unwrap();
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        let claimed = async |by, lease_ms| claim(&txn, by, lease_ms).await.unwrap();
        let renewed = async |by| renew(&txn, made.id, by, 60_000).await.unwrap();
        let shown = async || find(&txn, "s").await.unwrap().unwrap();

        // The first one's time is over when the second comes, of whichever server.
        let row = claimed(first, -1000).await.unwrap();
        assert!(claimed(second, 60_000).await.is_some());
        assert!(!any_due(&txn).await.unwrap(), "somebody looks at it");
        assert!(!renewed(first).await && renewed(second).await);
        end(&txn, &row, first, Some("late"), None).await.unwrap();
        free(&txn, made.id, first).await.unwrap();
        assert!(shown().await.error.is_none() && renewed(second).await);

        // Who looks is told at once that it is paused, and says nothing of it any more.
        set_state(&txn, made.id, SourceState::Paused).await.unwrap();
        assert!(!renewed(second).await);
        end(&txn, &row, second, Some("late"), Some(1)).await.unwrap();
        free(&txn, made.id, second).await.unwrap();
        let paused = shown().await;
        assert_eq!(
            (paused.state, paused.error, paused.next_sync_at_ms),
            (SourceState::Paused, None, None)
        );

        // Whoever asks for a look asks for what failed, too.
        source_step::put(&txn, made.id, &failed_step()).await.unwrap();
        set_state(&txn, made.id, SourceState::Active).await.unwrap();
        let step = source_step::list(&txn, made.id).await.unwrap().remove(0);
        assert_eq!((step.n_failures, step.retry_at_ms), (0, None));

        let row = claimed(second, 60_000).await.unwrap();
        assert!(renewed(second).await);
        db::run::set_deleted(&txn, run).await.unwrap();
        assert!(!renewed(second).await, "its run is deleted");
        end(&txn, &row, second, Some("deleted"), None).await.unwrap();
        let done = shown().await;
        assert_eq!(
            (done.state, done.error.as_deref()),
            (SourceState::Done, Some("deleted"))
        );
    }
}
