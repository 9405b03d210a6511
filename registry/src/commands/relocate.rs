//! `move`: a registry to another database and store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::commands::backup::{counted, store_url, told};
use crate::commands::serve::options_of;
use crate::commands::{print, say};
use crate::serve::{self, ServeOptions};
use crate::service::keep::relocate::{self, Place};

/// What `move` is told.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The data folder of the registry that moves.
    #[arg(long, env = "FINELINE_DATA", default_value = "fineline-data")]
    data: PathBuf,
    /// Its database, where that is another than the one in the folder.
    #[arg(long, value_name = "URL")]
    from_database: Option<String>,
    /// Its store, where that is another than the one in the folder.
    #[arg(long, value_name = "URL")]
    from_store: Option<String>,
    /// The database that it moves to, with nothing in it: `postgres://USER:PASSWORD@HOST/DATABASE` or `sqlite://PATH`.
    #[arg(long, value_name = "URL", required_unless_present = "abort")]
    database: Option<String>,
    /// The store that it moves to: a URL as `serve --store` takes it, or a folder.
    #[arg(long, value_name = "URL", required_unless_present = "abort")]
    store: Option<String>,
    /// Move although frames are damaged: they count as missing at the other end too.
    #[arg(long)]
    leave_damaged: bool,
    /// Take a move back that did not end, so that the registry can be served where it was.
    #[arg(long, conflicts_with_all = ["database", "store", "leave_damaged"])]
    abort: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Moves, or goes on with a move that was cut.
pub(crate) async fn run(args: MoveArgs) -> anyhow::Result<ExitCode> {
    let source = options_of(&args.data, args.from_database.as_ref(), args.from_store.as_ref());
    serve::require_registry(&source)?;
    let (Some(database), Some(store)) = (&args.database, &args.store) else {
        let from = serve::open_place(&source).await?;
        relocate::take_back(&from.db).await.map_err(told)?;
        say("the registry can be served where it was");
        return Ok(ExitCode::SUCCESS);
    };
    let from = serve::open_place(&source).await?;
    let target = ServeOptions {
        database: Some(database.clone()),
        store: Some(store_url(store)?),
        ..source
    };
    let to: Place = serve::open_place(&target).await?;
    let moved = relocate::relocate(&from, &to, args.leave_damaged, &say)
        .await
        .map_err(told)?;
    if args.json {
        print(&serde_json::to_string_pretty(&moved)?);
    } else {
        for table in &moved.tables {
            let (from, to) = (table.n_rows_from, table.n_rows_to);
            print(&format!("{:20} {from:>10} rows here {to:>10} rows there", table.name));
        }
        print(&counted(&moved.frames));
        print("every row was read back and compared, every frame was read back and hashed");
        let data = args.data.display();
        say(&format!(
            "serve it with: fineline-registry serve --data {data} --database URL --store URL\n\
             the administrator's token stays in `{data}/admin.token`; the old database takes no writes any more"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
