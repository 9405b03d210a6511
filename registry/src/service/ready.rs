//! Becoming ready: one transaction with the checkpoint, its files, who may read them, its tags, the evaluations of every
//! suite bound to the run, and the event.

use std::collections::BTreeSet;

use fineline_api::{EventKind, PushSessionState};
use fineline_format::weights::index_path;
use fineline_format::{Digest, FormatError, Manifest};
use metrics::counter;
use sea_orm::DatabaseTransaction;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::push_session::SessionRow;
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::ApiResult;
use crate::service::examine::Examined;
use crate::service::verify::LEASE_MS;
use crate::service::{checkpoint, chunk, commit, content, enqueue, possession, push_session, tokenizer};

/// Publishes what was examined; nothing happens when `verifier` has lost its claim.
///
/// # Errors
/// 409 when another push of the step was faster with other bytes.
pub(crate) async fn publish(
    app: &App,
    run: &RunRow,
    session: &SessionRow,
    verifier: Uuid,
    mut revision: RevisionRow,
    examined: Examined,
) -> ApiResult<()> {
    revision.weights_digest = examined.checkpoint.weights_digest;
    revision.model_digest = examined.checkpoint.model_digest;
    revision.warnings = warnings(app, run, &revision, &examined).await?;
    let digest = examined.checkpoint.digest;

    let txn = db::write_txn(&app.db).await?;
    if !db::verification::renew(&txn, revision.id, verifier, LEASE_MS).await? {
        return Ok(());
    }
    match db::revision::current(&txn, run.id, revision.step).await? {
        Some(current) if current.checkpoint == Some(digest) => {
            // What was damaged of it is whole again.
            publish_content(&txn, run, &examined).await?;
            commit::drop_unchanged(&txn, session.id, revision.id).await?;
            return Ok(txn.commit().await?);
        }
        Some(current) if !revision.may_replace(&current) => {
            return Err(push_session::step_exists(run, revision.step));
        }
        Some(current) if !revision.replace => {
            let warning = "its files changed in the source after they came in: the step has a new revision";
            tracing::warn!(run = %run.name, step = revision.step, before = ?current.checkpoint, "{warning}");
            revision.warnings.insert(0, warning.to_owned());
        }
        _ => {}
    }
    publish_content(&txn, run, &examined).await?;
    tokenizer::lend(&txn, run.id, &mut revision, &examined.manifest).await?;
    fail_point!("ready.published");
    db::verification::succeed(&txn, &revision).await?;
    for tag in &revision.tags {
        // A release made since the push began keeps its name.
        if !db::tag::is_release(&txn, run.id, tag).await? {
            db::tag::set(&txn, run.id, tag, revision.id).await?;
        }
    }
    db::push_session::end(&txn, session.id, PushSessionState::Committed, false, None).await?;
    let data = json!({ "digest": digest, "warnings": revision.warnings });
    db::event::insert(&txn, run.id, revision.step, EventKind::CheckpointReady, data).await?;
    enqueue::for_revision(&txn, run, &revision).await?;
    fail_point!("ready.before_commit");
    txn.commit().await?;
    counter!("fineline_checkpoints_ready_total").increment(1);
    Ok(())
}

/// Writes the checkpoint with its files, and that the run's readers may name all of their digests.
///
/// # Errors
/// 503 when a chunk was lost since it was examined: the revision is then examined again.
async fn publish_content(txn: &DatabaseTransaction, run: &RunRow, examined: &Examined) -> ApiResult<()> {
    let mut named = BTreeSet::from([examined.checkpoint.digest]);
    for file in &examined.files {
        let Some(row) = content::whole_row(txn, file).await? else {
            return Err(chunk::unavailable(format!(
                "file {} lost a chunk since it was examined",
                file.digest
            )));
        };
        named.insert(file.digest);
        // A file that was known already may be cut otherwise than it came here: who has its bytes may name those chunks.
        let chunks = file.chunks.iter().chain(&row.chunks);
        named.extend(chunks.map(|chunk| chunk.digest));
    }
    db::checkpoint::insert(txn, &examined.checkpoint).await?;
    let named: Vec<Digest> = named.into_iter().collect();
    Ok(db::possession::insert(txn, run.id, &named, true).await?)
}

/// What looks wrong and never blocks.
async fn warnings(app: &App, run: &RunRow, revision: &RevisionRow, examined: &Examined) -> ApiResult<Vec<String>> {
    let conn = app.db.reader();
    let mut warnings = Vec::new();
    // Where there is no index, the reason why it can't be evaluated has the file's name.
    if let Some(path) = &examined.legacy
        && index_path(&examined.manifest).is_some()
    {
        warnings.push(FormatError::LegacyTorch(path.clone()).to_string());
    }
    if let Some(weights) = &revision.weights_digest {
        let steps = db::revision::steps_with_weights(conn, run.id, weights, revision.step).await?;
        if !steps.is_empty() {
            let steps: Vec<_> = steps.iter().map(u64::to_string).collect();
            let steps = steps.join(", ");
            warnings.push(format!(
                "the weights are those of step {steps}: was the right file pushed?"
            ));
        }
    }
    if let Some(before) = db::revision::latest(conn, run.id, Some(revision.step)).await? {
        let compared = compare(app, &before, examined).await;
        warnings.extend(compared.unwrap_or_else(|error| {
            tracing::warn!(run = %run.name, step = before.step, %error, "a step can't be compared with the one before");
            vec![format!(
                "it can't be compared with step {}, which is damaged",
                before.step
            )]
        }));
    }
    Ok(warnings)
}

/// What a step does not share with the one before it.
async fn compare(app: &App, before: &RevisionRow, examined: &Examined) -> ApiResult<Vec<String>> {
    let mut warnings = Vec::new();
    let manifest = possession::manifest(app, before).await?;
    for name in ["tokenizer.json", "tokenizer.model"] {
        let tokenizer = |manifest: &Manifest| manifest.get(name).map(|file| file.digest);
        if let (Some(was), Some(is)) = (tokenizer(&manifest), tokenizer(&examined.manifest))
            && was != is
        {
            warnings.push(format!("`{name}` is another than at step {}", before.step));
        }
    }
    let was = checkpoint::tensors(app, before).await?;
    let was: BTreeSet<_> = was.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    if let Some((name, shape)) = was.symmetric_difference(&examined.tensors).next()
        && !was.is_empty()
        && !examined.tensors.is_empty()
    {
        let step = before.step;
        warnings.push(format!(
            "the tensors are others than at step {step}: `{name}` {shape:?} is in one only"
        ));
    }
    Ok(warnings)
}
