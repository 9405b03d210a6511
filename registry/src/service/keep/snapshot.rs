//! The rows of one moment, as objects: each table in parts, a part a zstd stream of lines (`db::dump` says what a line is),
//! and a head that names parts, counts and digests.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use fineline_format::{Digest, Hasher};
use futures::TryStreamExt;
use sea_orm::DatabaseTransaction;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::copy::Frame;
use super::{KeepError, KeepResult};
use crate::db::dump::{self, Table};
use crate::db::{self, Db};
use crate::store::Store;

/// Bytes of lines after which a part ends; its last line is as long as its row.
const PART_BYTES: usize = 8 << 20;

/// The most bytes of lines that a part may say it has.
const MAX_PART_BYTES: u64 = 1 << 30;

/// The form of what is written here.
pub(super) const FORMAT: u32 = 1;

/// What a snapshot is, but for the rows themselves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The form of all this: [`FORMAT`].
    pub(crate) format: u32,
    /// The moment, by the database's clock.
    pub(crate) taken_at: DateTime<Utc>,
    /// The migrations that the database had.
    pub(crate) migrations: Vec<String>,
    /// In the order in which they can be filled.
    pub(crate) tables: Vec<TableHead>,
}

/// A table of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableHead {
    #[serde(flatten)]
    pub(crate) table: Table,
    /// The last id that it gave, of one that counts.
    pub(crate) last_id: Option<i64>,
    pub(crate) n_rows: u64,
    /// Of all lines, each with its line break.
    pub(crate) digest: Digest,
    pub(crate) parts: Vec<Part>,
}

/// An object with some of a table's rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Of the stored bytes.
    pub(crate) digest: Digest,
    pub(crate) stored_bytes: u64,
    /// Of the lines.
    pub(crate) raw_bytes: u64,
}

/// A snapshot and where its parts lie.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) head: Head,
    pub(super) parts: Store,
}

impl Head {
    fn table(&self, name: &str) -> KeepResult<&TableHead> {
        let found = self.tables.iter().find(|table| table.table.name == name);
        found.ok_or_else(|| KeepError::Damaged(format!("it has no table `{name}`")))
    }
}

/// Reads all rows of one moment into `parts` under names that begin with `prefix`.
pub(super) async fn take(db: &Db, parts: &Store, prefix: &str) -> KeepResult<Snapshot> {
    let migrations = db::applied_migrations(db).await?;
    let txn = db::read_txn(db).await?;
    let mut tables = Vec::new();
    for table in dump::tables(&txn).await? {
        tables.push(take_table(&txn, table, parts, prefix).await?);
    }
    let now_ms = db::now_ms(&txn).await?;
    txn.commit().await?;
    Ok(Snapshot {
        head: Head {
            format: FORMAT,
            taken_at: DateTime::from_timestamp_millis(now_ms).unwrap_or_default(),
            migrations,
            tables,
        },
        parts: parts.clone(),
    })
}

async fn take_table(txn: &DatabaseTransaction, table: Table, parts: &Store, prefix: &str) -> KeepResult<TableHead> {
    // First: the rows keep the connection for as long as they are read.
    let last_id = dump::last_id(txn, &table).await?;
    let (mut written, mut lines, mut n_rows) = (Vec::new(), String::new(), 0);
    let mut hasher = Hasher::new();
    let mut rows = std::pin::pin!(dump::lines(txn, &table).await?);
    loop {
        let row = rows.try_next().await?;
        let is_last = row.is_none();
        if let Some(row) = row {
            lines.push_str(&row);
            lines.push('\n');
            n_rows += 1;
        }
        if lines.len() >= PART_BYTES || is_last && !lines.is_empty() {
            hasher.update(lines.as_bytes());
            let name = format!("{prefix}{}.{:05}.jsonl.zst", table.name, written.len());
            written.push(put_part(parts, name, std::mem::take(&mut lines)).await?);
        }
        if is_last {
            break;
        }
    }
    Ok(TableHead {
        last_id,
        table: table.clone(),
        n_rows,
        digest: hasher.finish(),
        parts: written,
    })
}

async fn put_part(parts: &Store, name: String, lines: String) -> KeepResult<Part> {
    let raw_bytes = lines.len() as u64;
    let compressed = tokio::task::spawn_blocking(move || zstd::bulk::compress(lines.as_bytes(), 3)).await??;
    let part = Part {
        name,
        digest: Digest::of(&compressed),
        stored_bytes: compressed.len() as u64,
        raw_bytes,
    };
    parts.put_named(&part.name, Bytes::from(compressed)).await?;
    Ok(part)
}

impl Snapshot {
    /// The same with its parts in `to`, so that reading them waits for no other machine.
    pub(super) async fn copied_to(&self, to: &Store) -> KeepResult<Self> {
        for part in self.head.tables.iter().flat_map(|table| &table.parts) {
            to.put_named(&part.name, self.parts.get_named(&part.name).await?)
                .await?;
        }
        Ok(Self {
            head: self.head.clone(),
            parts: to.clone(),
        })
    }

    /// The lines of a part, which are what was written.
    async fn lines(&self, part: &Part) -> KeepResult<String> {
        let damaged = |what: &str| KeepError::Damaged(format!("object `{}` {what}", part.name));
        let stored = self.parts.get_named(&part.name).await?;
        if Digest::of(&stored) != part.digest {
            return Err(damaged("has another digest than was written"));
        }
        if part.raw_bytes > MAX_PART_BYTES {
            return Err(damaged("says that it has more than a gigabyte of rows"));
        }
        let room = usize::try_from(part.raw_bytes).map_err(|_| damaged("is too large for this machine"))?;
        let raw = tokio::task::spawn_blocking(move || zstd::bulk::decompress(&stored, room)).await?;
        let raw = raw.map_err(|_| damaged("does not decode"))?;
        String::from_utf8(raw).map_err(|_| damaged("is no text"))
    }

    /// Writes all rows into empty tables of the snapshot's own schema, and reads them back: what is there is what was here.
    pub(super) async fn load(&self, txn: &DatabaseTransaction) -> KeepResult<()> {
        for head in &self.head.tables {
            for part in &head.parts {
                let lines = self.lines(part).await?;
                let lines: Vec<&str> = lines.lines().collect();
                dump::insert(txn, &head.table, &lines).await?;
            }
            if let Some(last) = head.last_id {
                dump::set_last_id(txn, &head.table, last).await?;
            }
        }
        for head in &self.head.tables {
            let found = dump::digest(txn, &head.table).await?;
            if found != (head.n_rows, head.digest) {
                return Err(KeepError::Damaged(format!(
                    "table `{}` has {} rows of digest {}, and {} rows of {} were read back",
                    head.table.name, head.n_rows, head.digest, found.0, found.1
                )));
            }
        }
        Ok(())
    }

    /// Every frame that a chunk of the snapshot lies in.
    pub(super) async fn frames(&self) -> KeepResult<Vec<Frame>> {
        let mut stored: HashMap<Uuid, u64> = HashMap::new();
        let mut each = |row: &Row<'_>| {
            stored.insert(row.get("id")?, row.get("stored_bytes")?);
            Ok(())
        };
        self.each_row("frame", &mut each).await?;
        let mut frames = Vec::new();
        let mut each = |row: &Row<'_>| {
            let digest: String = row.get("digest")?;
            let id: Uuid = row.get("frame_id")?;
            frames.push(Frame {
                chunk: Digest::from_hex(&digest).map_err(|error| KeepError::Damaged(error.to_string()))?,
                size_bytes: row.get("size_bytes")?,
                id,
                stored_bytes: stored.get(&id).copied().unwrap_or_default(),
            });
            Ok(())
        };
        self.each_row("chunk", &mut each).await?;
        Ok(frames)
    }

    async fn each_row(&self, table: &str, each: &mut (dyn FnMut(&Row<'_>) -> KeepResult<()> + Send)) -> KeepResult<()> {
        let head = self.head.table(table)?;
        for part in &head.parts {
            for line in self.lines(part).await?.lines() {
                let cells = serde_json::from_str(line).map_err(KeepError::unreadable)?;
                each(&Row {
                    table: &head.table,
                    cells,
                })?;
            }
        }
        Ok(())
    }
}

/// A row that is looked into.
struct Row<'a> {
    table: &'a Table,
    cells: Vec<serde_json::Value>,
}

impl Row<'_> {
    fn get<T: serde::de::DeserializeOwned>(&self, column: &str) -> KeepResult<T> {
        let cell = self.table.position(column).and_then(|at| self.cells.get(at));
        serde_json::from_value(cell.cloned().unwrap_or_default()).map_err(KeepError::unreadable)
    }
}
