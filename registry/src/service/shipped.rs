//! Scores that lie in a checkpoint beside its weights: taken in as measured by the harness that measured them, so that they
//! are never on one curve with ours.

use fineline_api::error::ErrorCode;
use fineline_api::{ExternalScore, PostScores, Reference};
use fineline_format::shipped_scores::{self, ShippedScores};
use fineline_format::{Digest, Manifest};

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{content, score};

/// Takes in the scores of a ready checkpoint; gives a sentence for each file of scores that can't be read. The same again
/// changes nothing.
///
/// # Errors
/// What the server can't do now; the step is there, and its scores come the next time.
pub(crate) async fn take_scores(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    checkpoint: Digest,
) -> ApiResult<Vec<String>> {
    let conn = app.db.reader();
    let rows = db::checkpoint::find_many(conn, &[checkpoint]).await?;
    let Some(row) = rows.get(&checkpoint) else {
        return Ok(Vec::new());
    };
    let manifest = Manifest::from_json(&row.manifest).map_err(ApiError::internal)?;
    let mut warnings = Vec::new();
    for file in manifest
        .files()
        .iter()
        .filter(|file| shipped_scores::is_score_file(&file.path))
    {
        let path = &file.path;
        if file.size_bytes > shipped_scores::MAX_BYTES {
            warnings.push(format!(
                "the scores of `{path}` are not read: it has {} bytes",
                file.size_bytes
            ));
            continue;
        }
        let json = content::read_content(app, &file.digest).await?;
        let posted = match shipped_scores::read(path, &json) {
            Some(Ok(shipped)) => post(app, caller, run, checkpoint, shipped).await,
            Some(Err(why)) => Err(ApiError::unprocessable(why)),
            None => Ok(()),
        };
        match posted {
            Err(error) if is_of_the_file(&error) => {
                warnings.push(format!("the scores of `{path}` are not taken in: {error}"));
            }
            posted => posted?,
        }
    }
    Ok(warnings)
}

/// Whether an error speaks of the scores, and not of the server, which may take them a moment later.
fn is_of_the_file(error: &ApiError) -> bool {
    use ErrorCode::{Conflict, InvalidRequest, NotFound, TooLarge, Unprocessable};
    [Conflict, InvalidRequest, NotFound, TooLarge, Unprocessable].contains(&error.code())
}

async fn post(app: &App, caller: &Caller, run: &RunRow, checkpoint: Digest, shipped: ShippedScores) -> ApiResult<()> {
    let external = |score: shipped_scores::ShippedScore| ExternalScore {
        task: score.task,
        metric: score.metric,
        filter: score.filter,
        value: score.value,
        stderr: score.stderr,
        n: score.n,
        limit: score.limit,
        n_shot: score.n_shot,
        higher_is_better: score.higher_is_better,
        dtype: score.dtype,
    };
    let new = PostScores {
        reference: Reference::Digest(checkpoint),
        harness: shipped.harness,
        harness_version: shipped.harness_version,
        scores: shipped.scores.into_iter().map(external).collect(),
    };
    if new.scores.is_empty() {
        return Ok(());
    }
    score::post(app, caller, run, &new).await.map(drop)
}
