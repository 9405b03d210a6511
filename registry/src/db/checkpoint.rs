//! Checkpoints: what follows from their bytes alone.

use std::collections::BTreeMap;

use fineline_format::Digest;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};

use super::entity::checkpoint;

/// What follows from a checkpoint's bytes alone.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointRow {
    pub(crate) digest: Digest,
    /// Its canonical manifest.
    pub(crate) manifest: Vec<u8>,
    pub(crate) n_files: u64,
    pub(crate) size_bytes: u64,
    pub(crate) weights_digest: Option<Digest>,
    pub(crate) model_digest: Option<Digest>,
    pub(crate) architecture: Option<String>,
}

/// Writes down a checkpoint; one that is known stays as it is.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: &CheckpointRow) -> Result<(), DbErr> {
    let row = checkpoint::ActiveModel {
        digest: Set(super::blob(&new.digest)),
        manifest: Set(new.manifest.clone()),
        n_files: Set(super::signed(new.n_files)),
        size_bytes: Set(super::signed(new.size_bytes)),
        weights_digest: Set(new.weights_digest.as_ref().map(super::blob)),
        model_digest: Set(new.model_digest.as_ref().map(super::blob)),
        architecture: Set(new.architecture.clone()),
    };
    checkpoint::Entity::insert(row)
        .on_conflict_do_nothing_on([checkpoint::Column::Digest])
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The checkpoints of these digests.
pub(crate) async fn find_many(
    conn: &impl ConnectionTrait,
    digests: &[Digest],
) -> Result<BTreeMap<Digest, CheckpointRow>, DbErr> {
    let mut found = BTreeMap::new();
    for batch in digests.chunks(500) {
        let query = checkpoint::Entity::find().filter(checkpoint::Column::Digest.is_in(batch.iter().map(super::blob)));
        for row in query.all(conn).await? {
            let digest = super::digest(&row.digest)?;
            let optional = |blob: Option<Vec<u8>>| blob.as_deref().map(super::digest).transpose();
            let checkpoint = CheckpointRow {
                digest,
                manifest: row.manifest,
                n_files: row.n_files.unsigned_abs(),
                size_bytes: row.size_bytes.unsigned_abs(),
                weights_digest: optional(row.weights_digest)?,
                model_digest: optional(row.model_digest)?,
                architecture: row.architecture,
            };
            found.insert(digest, checkpoint);
        }
    }
    Ok(found)
}
