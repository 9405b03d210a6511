//! Tokenizers that runs lend to steps without one of their own.
//!
//! **Invariant:** a row is never changed or deleted, so what an evaluation was queued with can be read as long as it
//! waits. The server keeps the files that it names (`service::kept`).

use std::collections::{BTreeMap, HashSet};

use fineline_format::Digest;
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait};

use super::entity::tokenizer;

/// The digest of each file of a tokenizer, by name.
pub(crate) type TokenizerFiles = BTreeMap<String, Digest>;

/// Keeps a tokenizer; one that is known stays as it is.
pub(crate) async fn insert(conn: &impl ConnectionTrait, digest: &Digest, files: &TokenizerFiles) -> Result<(), DbErr> {
    let row = tokenizer::ActiveModel {
        digest: Set(super::blob(digest)),
        files: Set(super::to_json(files)?),
        created_at_ms: Set(super::now_ms(conn).await?),
    };
    tokenizer::Entity::insert(row)
        .on_conflict_do_nothing_on([tokenizer::Column::Digest])
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The files of all tokenizers: they are kept whatever becomes of the checkpoints that they came from.
pub(crate) async fn all_files(conn: &impl ConnectionTrait) -> Result<HashSet<Digest>, DbErr> {
    let mut files = HashSet::new();
    for row in tokenizer::Entity::find().all(conn).await? {
        files.extend(super::from_json::<TokenizerFiles>(row.files)?.into_values());
    }
    Ok(files)
}

/// The files of a tokenizer.
pub(crate) async fn find(conn: &impl ConnectionTrait, digest: &Digest) -> Result<TokenizerFiles, DbErr> {
    let row = tokenizer::Entity::find_by_id(super::blob(digest)).one(conn).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound(format!("tokenizer {digest}")))?;
    super::from_json(row.files)
}
