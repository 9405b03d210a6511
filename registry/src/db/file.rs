//! Files that were read back from the store and have their digest.

use std::collections::HashMap;

use fineline_api::ChunkRef;
use fineline_format::Digest;
use sea_orm::sea_query::Expr;
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

/// Writes down a verified file. One that is known keeps its recipe; it gains its tensors when it had none yet.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: &FileRow) -> Result<(), DbErr> {
    let tensors = new.tensors.as_ref().map(super::to_json).transpose()?;
    let row = file::ActiveModel {
        digest: Set(super::blob(&new.digest)),
        size_bytes: Set(super::signed(new.size_bytes)),
        recipe: Set(recipe::pack(&new.chunks)),
        tensors: Set(tensors.clone()),
        verified_at_ms: Set(super::now_ms(conn).await?),
    };
    file::Entity::insert(row)
        .on_conflict_do_nothing_on([file::Column::Digest])
        .exec_without_returning(conn)
        .await?;
    if tensors.is_some() {
        let update = file::Entity::update_many()
            .col_expr(file::Column::Tensors, Expr::value(tensors))
            .filter(file::Column::Digest.eq(super::blob(&new.digest)))
            .filter(file::Column::Tensors.is_null());
        update.exec(conn).await?;
    }
    Ok(())
}

/// Writes down a verified file in place of a row whose recipe can't be read any more; tensors that are known stay.
pub(crate) async fn replace(conn: &impl ConnectionTrait, new: &FileRow) -> Result<(), DbErr> {
    insert(conn, new).await?;
    let update = file::Entity::update_many()
        .col_expr(file::Column::SizeBytes, Expr::value(super::signed(new.size_bytes)))
        .col_expr(file::Column::Recipe, Expr::value(recipe::pack(&new.chunks)))
        .col_expr(file::Column::VerifiedAtMs, Expr::value(super::now_ms(conn).await?))
        .filter(file::Column::Digest.eq(super::blob(&new.digest)));
    update.exec(conn).await.map(|_| ())
}

/// The verified files among these digests.
pub(crate) async fn find_many(
    conn: &impl ConnectionTrait,
    digests: &[Digest],
) -> Result<HashMap<Digest, FileRow>, DbErr> {
    let mut found = HashMap::new();
    for batch in digests.chunks(super::BATCH) {
        let query = file::Entity::find().filter(file::Column::Digest.is_in(batch.iter().map(super::blob)));
        for row in query.all(conn).await? {
            let row = file_row(row)?;
            found.insert(row.digest, row);
        }
    }
    Ok(found)
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
