//! Becoming ready: one transaction with the checkpoint, its files, who may read them, its tags, the evaluations of every
//! suite bound to the run, and the event.

use fineline_api::{EventKind, PushSessionState};
use fineline_format::Digest;
use metrics::counter;
use serde_json::json;
use std::collections::BTreeSet;

use crate::app::App;
use crate::db;
use crate::db::push_session::SessionRow;
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::ApiResult;
use crate::service::verify::Examined;
use crate::service::{enqueue, push_session};

/// Publishes what was examined.
///
/// # Errors
/// 409 when another push of the step was faster with other bytes.
pub(crate) async fn publish(
    app: &App,
    run: &RunRow,
    session: &SessionRow,
    mut revision: RevisionRow,
    examined: Examined,
) -> ApiResult<()> {
    revision.weights_digest = examined.checkpoint.weights_digest;
    revision.model_digest = examined.checkpoint.model_digest;
    revision.warnings = warnings(app, &revision, &examined).await?;
    let digest = examined.checkpoint.digest;

    let txn = db::write_txn(&app.db).await?;
    if let Some(current) = db::revision::current(&txn, run.id, revision.step).await? {
        if current.checkpoint == Some(digest) {
            db::push_session::end(&txn, session.id, PushSessionState::Committed, true, None).await?;
            db::push_session::detach(&txn, session.id).await?;
            db::revision::delete(&txn, revision.id).await?;
            return Ok(txn.commit().await?);
        }
        if !revision.replace {
            return Err(push_session::step_exists(run, revision.step));
        }
    }
    for file in &examined.files {
        db::file::insert(&txn, file).await?;
    }
    db::revision::insert_checkpoint(&txn, &examined.checkpoint).await?;
    let mut named: BTreeSet<Digest> = BTreeSet::from([digest]);
    for file in &examined.files {
        named.insert(file.digest);
        named.extend(file.chunks.iter().map(|chunk| chunk.digest));
    }
    let named: Vec<Digest> = named.into_iter().collect();
    db::possession::insert(&txn, run.id, &named, true).await?;
    db::revision::set_ready(&txn, &revision).await?;
    for tag in &revision.tags {
        db::tag::set(&txn, run.id, tag, revision.id).await?;
    }
    db::push_session::end(&txn, session.id, PushSessionState::Committed, false, None).await?;
    let data = json!({ "digest": digest, "warnings": revision.warnings });
    db::event::insert(&txn, run.id, revision.step, EventKind::CheckpointReady, data).await?;
    enqueue::for_revision(&txn, run, &revision).await?;
    txn.commit().await?;
    counter!("fineline_checkpoints_ready_total").increment(1);
    Ok(())
}

/// What looks wrong and never blocks.
async fn warnings(app: &App, revision: &RevisionRow, examined: &Examined) -> ApiResult<Vec<String>> {
    let conn = app.db.reader();
    let mut warnings = Vec::new();
    if let Some(weights) = &revision.weights_digest {
        let steps = db::revision::steps_with_weights(conn, revision.run_id, weights, revision.step).await?;
        if !steps.is_empty() {
            let steps: Vec<_> = steps.iter().map(u64::to_string).collect();
            warnings.push(format!(
                "the weights are those of step {}: was the right file pushed?",
                steps.join(", ")
            ));
        }
    }
    let before = db::revision::latest(conn, revision.run_id, Some(revision.step)).await?;
    if let Some(before) = before.filter(|row| row.checkpoint.is_some()) {
        let manifest = crate::service::possession::manifest(app, &before).await?;
        let tokenizer = |manifest: &fineline_format::Manifest| manifest.get("tokenizer.json").map(|file| file.digest);
        if let (Some(was), Some(is)) = (tokenizer(&manifest), tokenizer(&examined.manifest))
            && was != is
        {
            warnings.push(format!("tokenizer.json is another than at step {}", before.step));
        }
        let mut tensors = BTreeSet::new();
        for file in manifest.files() {
            let row = db::file::find(conn, &file.digest).await?;
            let found = row.and_then(|row| row.tensors).unwrap_or_default();
            tensors.extend(found.into_iter().map(|tensor| (tensor.name, tensor.shape)));
        }
        let found = examined.files.iter().filter_map(|file| file.tensors.as_ref()).flatten();
        let is: BTreeSet<_> = found
            .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
            .collect();
        if let Some((name, shape)) = tensors.symmetric_difference(&is).next()
            && !tensors.is_empty()
            && !is.is_empty()
        {
            warnings.push(format!(
                "the tensors are others than at step {}: `{name}` {shape:?} is in one only",
                before.step
            ));
        }
    }
    Ok(warnings)
}
