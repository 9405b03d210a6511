//! Files that were read back from the store and have their digest.

use fineline_api::ChunkRef;
use fineline_format::Digest;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait, QueryOrder, QuerySelect};
use sea_orm::{ColumnTrait, QueryFilter};
use serde::{Deserialize, Serialize};

use super::entity::file;
use crate::recipe;

/// A verified file.
#[derive(Debug, Clone)]
pub(crate) struct FileRow {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) chunks: Vec<ChunkRef>,
    /// Its tensors, where it is a container of weights.
    pub(crate) tensors: Option<Vec<TensorRow>>,
}

/// A tensor of a file, as its column keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TensorRow {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) digest: Digest,
}

fn file_row(row: file::Model) -> Result<FileRow, DbErr> {
    Ok(FileRow {
        digest: super::digest(&row.digest)?,
        size_bytes: row.size_bytes.unsigned_abs(),
        chunks: recipe::unpack(&row.recipe),
        tensors: row.tensors.map(super::from_json).transpose()?,
    })
}

/// Writes down a verified file; one that is known stays as it is.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: &FileRow) -> Result<(), DbErr> {
    let row = file::ActiveModel {
        digest: Set(super::blob(&new.digest)),
        size_bytes: Set(i64::try_from(new.size_bytes).unwrap_or(i64::MAX)),
        recipe: Set(recipe::pack(&new.chunks)),
        tensors: Set(new.tensors.as_ref().map(super::to_json).transpose()?),
        verified_at_ms: Set(super::now_ms(conn).await?),
    };
    let once = OnConflict::column(file::Column::Digest).do_nothing().to_owned();
    file::Entity::insert(row)
        .on_conflict(once)
        .try_insert()
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The verified file of that digest.
pub(crate) async fn find(conn: &impl ConnectionTrait, digest: &Digest) -> Result<Option<FileRow>, DbErr> {
    file::Entity::find_by_id(super::blob(digest))
        .one(conn)
        .await?
        .map(file_row)
        .transpose()
}

/// Files ordered by digest, those after `after` only: for walking over all of them.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<FileRow>, DbErr> {
    let mut query = file::Entity::find().order_by_asc(file::Column::Digest).limit(limit);
    if let Some(after) = after {
        query = query.filter(file::Column::Digest.gt(super::blob(after)));
    }
    query.all(conn).await?.into_iter().map(file_row).collect()
}
