//! The tokenizer that a source borrows from another place of the same server: it becomes the run's default, before the
//! checkpoints come that lack one.

use std::collections::BTreeMap;

use fineline_api::SourceStep;
use fineline_api::source::SourceStepState;
use fineline_format::evaluable::TOKENIZER_FILES;
use fineline_format::{Digest, Hasher};

use crate::db;
use crate::db::run::RunRow;
use crate::db::source_step::{StepRow, TOKENIZER};
use crate::service::ingest_error::IngestError;
use crate::service::source_claim::Claim;
use crate::service::{content, tokenizer};
use crate::source::{Object, Origin};

/// Makes the tokenizer of the source's definition the run's default, where it has one and it is another than the last time.
///
/// # Errors
/// [`IngestError::Wrong`] when there is no tokenizer at that place, [`IngestError::Source`] when it can't be read.
pub(crate) async fn take_tokenizer(claim: &Claim, run: &RunRow, origin: &Origin) -> Result<(), IngestError> {
    let Claim { app, source, .. } = claim;
    let Some(at) = &source.definition.tokenizer else {
        return Ok(());
    };
    let place = origin.place(at).await?;
    let files = tokenizer_files(place.objects.unwrap_or_default());
    if !TOKENIZER_FILES[..2].iter().any(|name| files.contains_key(*name)) {
        let message = format!("`{at}` has neither tokenizer.json nor tokenizer.model: name another place");
        return Err(IngestError::Wrong(message));
    }
    let mut hasher = Hasher::new();
    for (name, object) in &files {
        hasher.update(format!("{name}\0{}\0{}\n", object.size_bytes, object.version).as_bytes());
    }
    let fingerprint = hasher.finish();
    let key = format!("{TOKENIZER}{at}");
    let before = db::source_step::list(app.db.reader(), source.id).await?;
    if before
        .iter()
        .any(|row| row.place == key && row.ready_fingerprint == Some(fingerprint))
    {
        return Ok(());
    }
    let mut rows = BTreeMap::new();
    for (name, object) in &files {
        if object.size_bytes > tokenizer::MAX_FILE_BYTES {
            return Err(IngestError::Wrong(format!(
                "tokenizer file `{name}` has {} bytes",
                object.size_bytes
            )));
        }
        let bytes = origin.read(object, 0..object.size_bytes).await?;
        if object.sha256.is_some_and(|said| said != Digest::of(&bytes)) {
            return Err(IngestError::Wrong(format!(
                "tokenizer file `{name}` has other bytes than its digest says"
            )));
        }
        rows.insert(name.clone(), content::put_content(app, bytes).await?);
    }
    let digests = rows.iter().map(|(name, row)| (name.clone(), row.digest)).collect();
    claim.renew().await?;
    tokenizer::make_default(app, run, digests, rows.values(), true).await?;
    let size_bytes = files.values().map(|object| object.size_bytes).sum();
    let row = StepRow {
        shown: SourceStep {
            name: key.clone(),
            step: None,
            step_inferred: false,
            step_unsnapped: None,
            tokens: None,
            n_files: files.len() as u64,
            size_bytes,
            held_bytes: 0,
            state: SourceStepState::Ready,
            message: Some("the run's default tokenizer".to_owned()),
            warnings: Vec::new(),
            checkpoint: None,
        },
        place: key,
        version: place.version,
        fingerprint,
        since_ms: db::now_ms(app.db.reader()).await?,
        settle_ms: 0,
        marker: None,
        weights: None,
        ready_fingerprint: Some(fingerprint),
        n_failures: 0,
        retry_at_ms: None,
    };
    let txn = claim.txn().await?;
    db::source_step::put(&txn, source.id, &row).await?;
    Ok(txn.commit().await?)
}

/// The files of a tokenizer by the names that they have in a checkpoint; a release may write them with a `_` before.
fn tokenizer_files(objects: Vec<Object>) -> BTreeMap<String, Object> {
    let mut files = BTreeMap::new();
    for object in objects {
        let plain = object.path.trim_start_matches('_').to_owned();
        if TOKENIZER_FILES.contains(&plain.as_str()) && (plain == object.path || !files.contains_key(&plain)) {
            files.insert(plain, object);
        }
    }
    files
}
