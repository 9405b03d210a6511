//! Asking about thousands of digests: in statements of some hundreds, several at a time.

use fineline_format::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sea_orm::DbErr;

/// Statements that one question asks at the same time, where it has several connections.
const BATCHES_AT_ONCE: usize = 4;

/// The rows that a statement about some of these digests gives, asked until all were. Each answer is of one moment, they have none
/// in common unless all are asked in one transaction. Asked in the order of the digests, so that the rows of a batch lie side by side in
/// the tree of their key, however many others there are.
pub(super) async fn ask<T, F>(digests: &[Digest], ask: impl Fn(Vec<Digest>) -> F) -> Result<Vec<T>, DbErr>
where
    F: Future<Output = Result<Vec<T>, DbErr>>,
{
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let batches: Vec<Vec<Digest>> = sorted.chunks(super::BATCH).map(<[Digest]>::to_vec).collect();
    let answers: Vec<Vec<T>> = stream::iter(batches)
        .map(ask)
        .buffer_unordered(BATCHES_AT_ONCE)
        .try_collect()
        .await?;
    Ok(answers.into_iter().flatten().collect())
}
