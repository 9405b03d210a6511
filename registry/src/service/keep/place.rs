//! A place of backups: a store whose frames lie as in any store, and for each backup `backups/ID/` with its parts and, written
//! last, `backup.json`. What has no `backup.json` is none. One registry to a place.

use bytes::Bytes;
use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::snapshot::{FORMAT, Head};
use super::{BadFrame, KeepError, KeepResult};
use crate::store::{Store, StoreError};

const FOLDER: &str = "backups";
const HEAD: &str = "backup.json";

/// A backup, but for its rows and frames.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Backup {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) n_frames: u64,
    pub(crate) frame_bytes: u64,
    /// Frames that its rows name and that it does not have.
    pub(crate) bad_frames: Vec<BadFrame>,
}

/// What stands in `backup.json`: the backup, and the digest of its very text.
#[derive(Serialize, Deserialize)]
struct Sealed {
    digest: Digest,
    backup: Box<RawValue>,
}

impl Backup {
    /// The rows of all its tables.
    pub(crate) fn n_rows(&self) -> u64 {
        self.head.tables.iter().map(|table| table.n_rows).sum()
    }
}

/// What the names of a backup's parts begin with.
pub(super) fn prefix(id: &str) -> String {
    format!("{FOLDER}/{id}/")
}

/// Makes what was put under an id a backup.
pub(super) async fn seal(to: &Store, id: &str, backup: &Backup) -> KeepResult<()> {
    let backup = serde_json::value::to_raw_value(backup).map_err(KeepError::unreadable)?;
    let sealed = Sealed {
        digest: Digest::of(backup.get().as_bytes()),
        backup,
    };
    let text = serde_json::to_vec(&sealed).map_err(KeepError::unreadable)?;
    Ok(to.put_named(&(prefix(id) + HEAD), Bytes::from(text)).await?)
}

/// The backup of that id, as it was sealed.
///
/// # Errors
/// [`KeepError::Refused`] when there is none or a newer release made it, [`KeepError::Damaged`] when it is another.
pub(crate) async fn open(from: &Store, id: &str) -> KeepResult<Backup> {
    let text = match from.get_named(&(prefix(id) + HEAD)).await {
        Ok(text) => text,
        Err(StoreError::Missing(_)) => {
            let hint = "`fineline-registry backup --list` names those that are there";
            return Err(KeepError::refused(format!("there is no backup `{id}`"), hint));
        }
        Err(error) => return Err(error.into()),
    };
    let sealed: Sealed = serde_json::from_slice(&text).map_err(KeepError::unreadable)?;
    if Digest::of(sealed.backup.get().as_bytes()) != sealed.digest {
        return Err(KeepError::Damaged(format!(
            "`{}{HEAD}` has another digest than it says",
            prefix(id)
        )));
    }
    let format: serde_json::Value = serde_json::from_str(sealed.backup.get()).map_err(KeepError::unreadable)?;
    if format["format"].as_u64() != Some(u64::from(FORMAT)) {
        return Err(KeepError::refused(
            format!(
                "backup `{id}` has format {}, this build reads {FORMAT}",
                format["format"]
            ),
            "restore it with the release that made it, or a later one",
        ));
    }
    serde_json::from_value(format).map_err(KeepError::unreadable)
}

/// The ids of all backups, the oldest first.
pub(crate) async fn list(from: &Store) -> KeepResult<Vec<String>> {
    let names = from.list_named(FOLDER).await?;
    let ids = names.iter().filter_map(|name| {
        let (id, rest) = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
        (rest == HEAD).then(|| id.to_owned())
    });
    Ok(ids.collect())
}

/// Takes a backup's head away first, so that what a cut leaves is none, then its parts; with those of backups that were
/// never sealed. `kept` stay.
pub(super) async fn remove_all_but(from: &Store, kept: &[String]) -> KeepResult<()> {
    let names = from.list_named(FOLDER).await?;
    let is_kept = |name: &String| kept.iter().any(|id| name.starts_with(&prefix(id)));
    let (heads, parts): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter(|name| !is_kept(name))
        .partition(|name| name.ends_with(HEAD));
    for name in heads.into_iter().chain(parts) {
        from.delete_named(&name).await?;
    }
    Ok(())
}
