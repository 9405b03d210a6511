//! Files that the server keeps for itself and no run possesses: those of suites, and sample logs.

use fineline_format::Digest;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::entity::{kept_chunk, sample_log};

/// Says that the server needs the chunks of a file.
pub(crate) async fn insert(conn: &impl ConnectionTrait, file: &Digest, chunks: &[Digest]) -> Result<(), DbErr> {
    for batch in chunks.chunks(500) {
        let rows = batch.iter().map(|chunk| kept_chunk::ActiveModel {
            file_digest: Set(super::blob(file)),
            chunk_digest: Set(super::blob(chunk)),
        });
        let columns = [kept_chunk::Column::FileDigest, kept_chunk::Column::ChunkDigest];
        kept_chunk::Entity::insert_many(rows)
            .on_conflict(OnConflict::columns(columns).do_nothing().to_owned())
            .try_insert()
            .exec_without_returning(conn)
            .await?;
    }
    Ok(())
}

/// Whether a file is kept.
pub(crate) async fn holds(conn: &impl ConnectionTrait, file: &Digest) -> Result<bool, DbErr> {
    let query = kept_chunk::Entity::find().filter(kept_chunk::Column::FileDigest.eq(super::blob(file)));
    Ok(query.one(conn).await?.is_some())
}

/// Lets go of the chunks of a file.
pub(crate) async fn delete(conn: &impl ConnectionTrait, file: &Digest) -> Result<(), DbErr> {
    kept_chunk::Entity::delete_many()
        .filter(kept_chunk::Column::FileDigest.eq(super::blob(file)))
        .exec(conn)
        .await
        .map(|_| ())
}

/// The files that are kept, by digest, behind `after`.
pub(crate) async fn files(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<Digest>, DbErr> {
    let mut query = kept_chunk::Entity::find()
        .select_only()
        .column(kept_chunk::Column::FileDigest)
        .distinct()
        .order_by_asc(kept_chunk::Column::FileDigest)
        .limit(limit);
    if let Some(after) = after {
        query = query.filter(kept_chunk::Column::FileDigest.gt(super::blob(after)));
    }
    let rows: Vec<Vec<u8>> = query.into_tuple().all(conn).await?;
    rows.iter().map(|row| super::digest(row)).collect()
}

/// The sample logs by digest, behind `after`.
pub(crate) async fn sample_logs(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<Digest>, DbErr> {
    let mut query = sample_log::Entity::find()
        .select_only()
        .column(sample_log::Column::FileDigest)
        .distinct()
        .order_by_asc(sample_log::Column::FileDigest)
        .limit(limit);
    if let Some(after) = after {
        query = query.filter(sample_log::Column::FileDigest.gt(super::blob(after)));
    }
    let rows: Vec<Vec<u8>> = query.into_tuple().all(conn).await?;
    rows.iter().map(|row| super::digest(row)).collect()
}

/// Whether a file is a sample log.
pub(crate) async fn is_sample_log(conn: &impl ConnectionTrait, file: &Digest) -> Result<bool, DbErr> {
    let query = sample_log::Entity::find().filter(sample_log::Column::FileDigest.eq(super::blob(file)));
    Ok(query.one(conn).await?.is_some())
}
