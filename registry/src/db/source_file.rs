//! What was read of the files of sources: a file that the place calls the same is not read again, and one that was cut off
//! is read on from where it was.

use fineline_api::ChunkRef;
use fineline_format::Digest;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};

use super::entity::source_file;
use crate::recipe;

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRead {
    /// Where it lies: its checkpoint's place and its path there.
    pub(crate) key: String,
    /// What the place called its bytes, and how many they were.
    pub(crate) version: String,
    pub(crate) size_bytes: u64,
    /// The chunks that were read so far, from its beginning on.
    pub(crate) chunks: Vec<ChunkRef>,
    /// Of the whole file, once it was read to its end.
    pub(crate) digest: Option<Digest>,
}

/// What was read of the file of that key.
pub(crate) async fn find(conn: &impl ConnectionTrait, source_id: i64, key: &str) -> Result<Option<FileRead>, DbErr> {
    let row = source_file::Entity::find_by_id((source_id, key.to_owned()))
        .one(conn)
        .await?;
    let read = |row: source_file::Model| {
        Ok(FileRead {
            key: row.key,
            version: row.version,
            size_bytes: row.size_bytes.unsigned_abs(),
            chunks: recipe::unpack(&row.recipe),
            digest: row.digest.as_deref().map(super::digest).transpose()?,
        })
    };
    row.map(read).transpose()
}

/// Writes down what was read of a file; the last word counts.
pub(crate) async fn put(conn: &impl ConnectionTrait, source_id: i64, read: &FileRead) -> Result<(), DbErr> {
    use source_file::Column::{Digest as DigestColumn, Key, Recipe, SizeBytes, SourceId, Version};
    let model = source_file::ActiveModel {
        source_id: Set(source_id),
        key: Set(read.key.clone()),
        version: Set(read.version.clone()),
        size_bytes: Set(super::signed(read.size_bytes)),
        recipe: Set(recipe::pack(&read.chunks)),
        digest: Set(read.digest.as_ref().map(super::blob)),
    };
    let again = OnConflict::columns([SourceId, Key])
        .update_columns([Version, SizeBytes, Recipe, DigestColumn])
        .to_owned();
    let insert = source_file::Entity::insert(model).on_conflict(again);
    insert.exec_without_returning(conn).await.map(drop)
}

/// Forgets what was read of the files of a place that is not in the source any more.
pub(crate) async fn forget(conn: &impl ConnectionTrait, source_id: i64, place: &str) -> Result<(), DbErr> {
    // The keys of its files, `/` being followed by `0`.
    let delete = source_file::Entity::delete_many()
        .filter(source_file::Column::SourceId.eq(source_id))
        .filter(source_file::Column::Key.gte(format!("{place}/")))
        .filter(source_file::Column::Key.lt(format!("{place}0")));
    delete.exec(conn).await.map(drop)
}
