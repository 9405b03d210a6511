//! How a revision becomes ready, or fails: receiving → verifying → ready / failed.
//!
//! **Invariant:** only the holder of the live claim ends a verifying revision, so two servers never end it twice.

use fineline_api::CheckpointState;
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entity::revision;
use super::revision::{RevisionRow, is, revision_row};

/// A revision goes from receiving to verifying with the checkpoint that was committed; whether it received.
pub(crate) async fn begin(conn: &impl ConnectionTrait, id: i64, checkpoint: &Digest) -> Result<bool, DbErr> {
    let verifying = Expr::value(CheckpointState::Verifying.as_str());
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::State, verifying)
        .col_expr(revision::Column::CheckpointDigest, Expr::value(super::blob(checkpoint)))
        .filter(revision::Column::Id.eq(id))
        .filter(is(CheckpointState::Receiving));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// Takes the oldest revision that nobody verifies (any more), for `lease_ms`.
pub(crate) async fn claim(
    conn: &impl ConnectionTrait,
    verifier: Uuid,
    lease_ms: i64,
) -> Result<Option<RevisionRow>, DbErr> {
    let now = super::now_ms(conn).await?;
    let free = Condition::any()
        .add(revision::Column::VerifierUntilMs.is_null())
        .add(revision::Column::VerifierUntilMs.lt(now));
    let picked = revision::Entity::find()
        .filter(is(CheckpointState::Verifying))
        .filter(free)
        .order_by_asc(revision::Column::Id)
        .one(conn)
        .await?;
    let Some(picked) = picked else { return Ok(None) };
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::Verifier, Expr::value(verifier))
        .col_expr(revision::Column::VerifierUntilMs, Expr::value(now + lease_ms))
        .filter(revision::Column::Id.eq(picked.id));
    update.exec(conn).await?;
    revision_row(picked).map(Some)
}

/// Keeps a claim for `lease_ms` more; `false` when it is another's by now, or the revision has ended. Called in the
/// transaction that ends a revision, it is the check that the end is the caller's to write.
pub(crate) async fn renew(conn: &impl ConnectionTrait, id: i64, verifier: Uuid, lease_ms: i64) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::VerifierUntilMs, Expr::value(now + lease_ms))
        .filter(revision::Column::Id.eq(id))
        .filter(revision::Column::Verifier.eq(verifier))
        .filter(is(CheckpointState::Verifying));
    Ok(update.exec(conn).await?.rows_affected == 1)
}

/// A revision ends without becoming ready.
pub(crate) async fn fail(conn: &impl ConnectionTrait, id: i64, failure: &str) -> Result<(), DbErr> {
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::State, Expr::value(CheckpointState::Failed.as_str()))
        .col_expr(revision::Column::Failure, Expr::value(failure))
        .filter(revision::Column::Id.eq(id));
    update.exec(conn).await.map(|_| ())
}

/// A revision becomes ready, and the one its step points to.
pub(crate) async fn succeed(conn: &impl ConnectionTrait, row: &RevisionRow) -> Result<(), DbErr> {
    let replaced = revision::Entity::update_many()
        .col_expr(revision::Column::Current, Expr::value(false))
        .filter(revision::Column::RunId.eq(row.run_id))
        .filter(revision::Column::Step.eq(super::signed(row.step)))
        .filter(revision::Column::Current.eq(true));
    replaced.exec(conn).await?;
    let blob = |digest: &Option<Digest>| digest.as_ref().map(super::blob);
    let update = revision::Entity::update_many()
        .col_expr(revision::Column::State, Expr::value(CheckpointState::Ready.as_str()))
        .col_expr(revision::Column::Current, Expr::value(true))
        .col_expr(revision::Column::WeightsDigest, Expr::value(blob(&row.weights_digest)))
        .col_expr(revision::Column::ModelDigest, Expr::value(blob(&row.model_digest)))
        .col_expr(revision::Column::TokenizerDigest, Expr::value(blob(&row.tokenizer)))
        .col_expr(revision::Column::Warnings, Expr::value(super::to_json(&row.warnings)?))
        .col_expr(revision::Column::ReadyAtMs, Expr::value(super::now_ms(conn).await?))
        .filter(revision::Column::Id.eq(row.id));
    update.exec(conn).await.map(|_| ())
}
