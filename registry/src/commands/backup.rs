//! `backup` and `restore`: a registry into a place of backups, and out of it.

use std::process::ExitCode;

use clap::Args;

use crate::commands::failure::UserError;
use crate::commands::serve::DataArgs;
use crate::commands::{print, say};
use crate::serve;
use crate::service::keep::backup::{self, BackupOptions};
use crate::service::keep::{BadFrame, Copied, KeepError, place, restore};
use crate::store::Store;

/// What `backup` is told.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The place: a folder, or a URL as --store takes it. One place for one registry; what an earlier backup brought is
    /// not copied again.
    #[arg(long)]
    to: String,
    #[command(flatten)]
    data: DataArgs,
    /// Read back and hash the frames that an earlier backup brought, too, and bring those anew that are damaged.
    #[arg(long)]
    verify: bool,
    /// Then take away all but so many of the newest backups, and the frames that only the others name.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keep_last: Option<u64>,
    /// Only list the backups that are there, the oldest first.
    #[arg(long, conflicts_with_all = ["verify", "keep_last"])]
    list: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `restore` is told.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The place: what `backup --to` was given.
    #[arg(long)]
    from: String,
    /// Which backup, by its id; the newest when absent.
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Makes a backup; exit status 1 when frames are damaged.
pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let to = open_store(&args.to, &args.data)?;
    if args.list {
        return list(&to, args.json).await;
    }
    let source = args.data.options();
    serve::require_registry(&source)?;
    let app = serve::open(&source).await?;
    let options = BackupOptions {
        verify: args.verify,
        keep_last: args.keep_last.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    };
    let made = backup::backup(&app.db, &app.store, &to, options, &say).await;
    let made = made.map_err(told)?;
    if args.json {
        print(&serde_json::to_string_pretty(&made)?);
    } else {
        print(&made.id);
        say(&format!("{} rows, {}", made.n_rows, counted(&made.frames)));
        if args.keep_last.is_some() {
            let (backups, frames) = (made.n_pruned, made.n_pruned_frames);
            say(&format!("{backups} older backups and {frames} frames were taken away"));
        }
    }
    let hint = "hint: push a step that has what is damaged again, then back up again: the rest is kept";
    Ok(ended(&made.frames.bad_frames, hint))
}

/// Restores a backup; exit status 1 when frames are damaged.
pub(crate) async fn run_restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let from = open_store(&args.from, &args.data)?;
    let (db, store) = serve::connect(&args.data.options()).await?;
    let restored = restore::restore(&from, args.backup, &db, &store, &say).await;
    let restored = restored.map_err(told)?;
    if args.json {
        print(&serde_json::to_string_pretty(&restored)?);
    } else {
        print(&restored.id);
        say(&format!("{} rows, {}", restored.n_rows, counted(&restored.frames)));
        say("tokens work as before; a server on a new folder makes an administrator's token of its own beside them");
    }
    let hint = "hint: what is damaged counts as missing: push a step that has it again";
    Ok(ended(&restored.frames.bad_frames, hint))
}

async fn list(to: &Store, json: bool) -> anyhow::Result<ExitCode> {
    let mut listed = Vec::new();
    for id in place::list(to).await.map_err(told)? {
        let found = place::open(to, &id).await.map_err(told)?;
        if json {
            listed.push(serde_json::json!({
                "id": id, "taken_at": found.head.taken_at, "n_rows": found.n_rows(), "n_frames": found.n_frames,
                "frame_bytes": found.frame_bytes, "n_bad_frames": found.bad_frames.len(),
            }));
        } else {
            let (rows, frames, bytes) = (found.n_rows(), found.n_frames, found.frame_bytes);
            let bad = found.bad_frames.len();
            print(&format!(
                "{id}  {rows} rows  {frames} frames  {bytes} bytes  {bad} damaged"
            ));
        }
    }
    if json {
        print(&serde_json::to_string_pretty(&listed)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// A store by its URL, or by the path of its folder.
fn open_store(place: &str, data: &DataArgs) -> anyhow::Result<Store> {
    serve::open_store(&store_url(place)?, &data.options())
}

pub(super) fn store_url(place: &str) -> anyhow::Result<String> {
    if place.contains("://") {
        return Ok(place.to_owned());
    }
    Ok(format!("file://{}", std::path::absolute(place)?.display()))
}

/// An error as commands tell it: what the user can mend comes with its hint.
pub(super) fn told(error: KeepError) -> anyhow::Error {
    match error {
        KeepError::Refused { message, hint } => UserError::new(message, hint).into(),
        KeepError::Store(crate::store::StoreError::Full(_)) => {
            UserError::new(error.to_string(), "make room, then give the same command again").into()
        }
        other => other.into(),
    }
}

pub(super) fn counted(frames: &Copied) -> String {
    format!(
        "{} frames of {} bytes were copied, {} of {} bytes were there",
        frames.n_copied, frames.copied_bytes, frames.n_held, frames.held_bytes
    )
}

/// Names what is damaged; the exit status.
fn ended(bad_frames: &[BadFrame], hint: &str) -> ExitCode {
    if bad_frames.is_empty() {
        return ExitCode::SUCCESS;
    }
    bad_frames
        .iter()
        .for_each(|bad| say(&format!("damaged: {}", bad.message)));
    say(hint);
    ExitCode::FAILURE
}
