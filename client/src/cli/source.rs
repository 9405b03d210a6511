//! `fineline source …`, for administrators: places outside of the registry whose checkpoints come in by themselves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fineline_api::source::{HubCheckpoints, SourceStepState};
use fineline_api::{CreateSource, RunName, Source as SourceRow, SourceLocation, SourceStep, StepMapping};
use serde_json::json;

use super::context::Context;
use super::failure::UserError;
use super::table::{NONE, Table, bytes, facts, or_none, time};
use super::{Ending, Outcome};

/// What is done with sources.
#[derive(Debug, Subcommand)]
pub(crate) enum Source {
    /// Make a source: its checkpoints come in by themselves from now on.
    Add(Box<Add>),
    /// List all sources.
    List,
    /// Show a source, its checkpoints, and how far each is.
    Show {
        /// The source's name.
        name: String,
    },
    /// Look at a source at once; one that is paused or done is active again.
    Sync {
        /// The source's name.
        name: String,
    },
    /// Pause a source.
    Pause {
        /// The source's name.
        name: String,
    },
    /// Forget a source; the steps that came of it stay.
    Remove {
        /// The source's name.
        name: String,
    },
}

/// A new source.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What it is called.
    name: String,
    /// Where the checkpoints lie: `s3://BUCKET/PREFIX`, a folder of the server's machine, or `hf://NAMESPACE/NAME[@REVISION]`,
    /// of which there may be several.
    #[arg(required = true, value_name = "LOCATION")]
    locations: Vec<String>,
    /// The run that it fills.
    #[arg(long)]
    run: RunName,
    /// Print what would come, and make nothing.
    #[arg(long)]
    dry_run: bool,
    /// Look again and again, and after this time at the latest (`10m`, `1h`); without it, until all that is there came in.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "10m", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// How long a checkpoint's files must have been as they are (`5m`).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    settle: Option<Duration>,
    /// A file whose presence says that a checkpoint is whole, in place of the settle time.
    #[arg(long, value_name = "FILE")]
    marker: Option<String>,
    /// Another server than the Hub or AWS: `https://HOST[:PORT]`.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The bucket's region.
    #[arg(long)]
    region: Option<String>,
    /// What of a Hub is a checkpoint: `branches` (of one repository) or `repositories` (of several), when not said.
    #[arg(long, value_name = "WHAT")]
    checkpoints: Option<HubCheckpoints>,
    /// A place of the same server whose tokenizer becomes the run's default: `NAMESPACE/NAME`, or a folder.
    #[arg(long, value_name = "PLACE")]
    tokenizer: Option<String>,
    /// Keep optimizer and random states too.
    #[arg(long)]
    keep_optimizer: bool,
    /// A file with what opens the place: a Hub's token, or `ACCESS_KEY_ID:SECRET_ACCESS_KEY`. The registry keeps it.
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    secret_file: Option<PathBuf>,
    /// A variable of the server's environment that holds it; begins with `FINELINE_SOURCE_SECRET`.
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// A file with what a webhook or a bucket's notification must say to be believed.
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    #[command(flatten)]
    mapping: Mapping,
}

/// How what is found becomes steps.
#[derive(Debug, Args)]
#[command(next_help_heading = "How what is found becomes steps")]
struct Mapping {
    /// Only names that match, `*` being any text; can be given several times.
    #[arg(long, value_name = "PATTERN")]
    select: Vec<String>,
    /// How names are read that nothing else reads: text with `{step}`, `{tokens}` and `*`.
    #[arg(long)]
    template: Option<String>,
    /// The step of a name that says none (`main=359`); can be given several times.
    #[arg(long = "step", value_name = "NAME=STEP", value_parser = named)]
    steps: Vec<(String, u64)>,
    /// The tokens of a name's step; can be given several times.
    #[arg(long = "tokens", value_name = "NAME=TOKENS", value_parser = named)]
    tokens: Vec<(String, u64)>,
    /// Tokens of one step; the run's own, when not said.
    #[arg(long, value_name = "TOKENS")]
    tokens_per_step: Option<u64>,
    /// Tokens seen at step 0, where steps are counted from the first checkpoint on.
    #[arg(long = "tokens-at-step-0", value_name = "TOKENS")]
    tokens_at_step_0: Option<u64>,
    /// Move a step that follows from rounded tokens to the nearest multiple of this.
    #[arg(long, value_name = "STEPS")]
    step_multiple: Option<u64>,
    /// The folder of a checkpoint in which its files lie; `{name}` stands for the checkpoint's name.
    #[arg(long, value_name = "FOLDER")]
    subfolder: Option<String>,
}

fn named(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.rsplit_once('=').ok_or("write it as NAME=NUMBER")?;
    let number = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Ok((name.to_owned(), number))
}

pub(crate) async fn run(context: &Context, command: Source) -> Outcome {
    let (client, printer) = (context.client()?, context.printer);
    match command {
        Source::Add(add) => return self::add(context, *add).await,
        Source::List => printer.data(&client.list_sources().await?, |sources| table(sources))?,
        Source::Show { name } => {
            let source = client.get_source(&name).await?;
            let steps = client.list_source_steps(&name).await?;
            let text = format!("{}\n{}", describe(&source), steps_table(&steps));
            printer.data(&json!({ "source": source, "steps": steps }), |_| text)?;
        }
        Source::Sync { name } => {
            printer.data(&client.sync_source(&name).await?, |_| {
                format!("source {name} is looked at")
            })?;
        }
        Source::Pause { name } => {
            printer.data(&client.pause_source(&name).await?, |_| {
                format!("source {name} is paused")
            })?;
        }
        Source::Remove { name } => {
            client.delete_source(&name).await?;
            printer.data(&json!({ "removed": name }), |_| {
                format!("source {name} is removed, its steps stay")
            })?;
        }
    }
    Ok(Ending::Good)
}

async fn add(context: &Context, add: Add) -> Outcome {
    let (client, printer) = (context.client()?, context.printer);
    let dry_run = add.dry_run;
    let new = definition(add)?;
    if !dry_run {
        let source = client.create_source(&new).await?;
        printer.data(&source, describe)?;
        return Ok(Ending::Good);
    }
    let preview = client.preview_source(&new).await?;
    printer.data(&preview, |preview| steps_table(&preview.steps))?;
    preview
        .warnings
        .iter()
        .for_each(|warning| printer.word(&format!("warning: {warning}")));
    let count = |state| preview.steps.iter().filter(|step| step.state == state).count();
    let sum = |bytes: fn(&SourceStep) -> u64| -> u64 {
        let comes = |step: &&SourceStep| step.state == SourceStepState::New;
        preview.steps.iter().filter(comes).map(bytes).sum()
    };
    printer.word(&format!(
        "{} steps would come with {}, of which {} are held; {} wait, {} can't come, {} are ignored",
        count(SourceStepState::New),
        bytes(sum(|step| step.size_bytes)),
        bytes(sum(|step| step.held_bytes)),
        count(SourceStepState::Waiting),
        count(SourceStepState::Failed),
        count(SourceStepState::Ignored),
    ));
    Ok(Ending::Good)
}

fn definition(add: Add) -> anyhow::Result<CreateSource> {
    let secret = |path: Option<PathBuf>| -> anyhow::Result<Option<String>> {
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).with_context(|| format!("file `{}`", path.display()))?;
            anyhow::Ok(text.trim().to_owned())
        };
        path.map(read).transpose()
    };
    let mapping = add.mapping;
    Ok(CreateSource {
        location: location(&add.locations, add.endpoint, add.region, add.checkpoints)?,
        name: add.name,
        run: add.run,
        mapping: StepMapping {
            select: mapping.select,
            template: mapping.template,
            steps: mapping.steps.into_iter().collect(),
            tokens: mapping.tokens.into_iter().collect(),
            tokens_per_step: mapping.tokens_per_step,
            tokens_at_step_0: mapping.tokens_at_step_0,
            step_multiple: mapping.step_multiple,
            subfolder: mapping.subfolder,
        },
        interval_s: add.watch.map(|interval| interval.as_secs()),
        settle_s: add.settle.map(|settle| settle.as_secs()),
        marker: add.marker,
        keep_optimizer: add.keep_optimizer,
        tokenizer: add.tokenizer,
        secret: secret(add.secret_file)?,
        secret_env: add.secret_env,
        webhook_secret: secret(add.webhook_secret_file)?,
    })
}

fn location(
    locations: &[String],
    endpoint: Option<String>,
    region: Option<String>,
    checkpoints: Option<HubCheckpoints>,
) -> anyhow::Result<SourceLocation> {
    let repositories: Option<Vec<String>> = locations
        .iter()
        .map(|location| location.strip_prefix("hf://").map(str::to_owned))
        .collect();
    if let Some(repositories) = repositories {
        return Ok(SourceLocation::Hub {
            endpoint,
            repositories,
            checkpoints,
        });
    }
    let [location] = locations else {
        let hint = "give several of `hf://` alone, and make a source of each other place";
        return Err(UserError::new("several locations are given, and not all are repositories", hint).into());
    };
    if let Some(rest) = location.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        return Ok(SourceLocation::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            region,
        });
    }
    let path = location.strip_prefix("file://").unwrap_or(location);
    if !path.starts_with('/') {
        let hint =
            "write `s3://BUCKET/PREFIX`, `hf://NAMESPACE/NAME`, or the absolute path of a folder of the server's";
        return Err(UserError::new(format!("location `{location}` is none"), hint).into());
    }
    Ok(SourceLocation::Folder { path: path.to_owned() })
}

fn place(location: &SourceLocation) -> String {
    match location {
        SourceLocation::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
        SourceLocation::Hub { repositories, .. } => match repositories.as_slice() {
            [one] => format!("hf://{one}"),
            many => format!("{} repositories", many.len()),
        },
        SourceLocation::Folder { path } => path.clone(),
    }
}

fn table(sources: &[SourceRow]) -> String {
    let mut table = Table::new([
        "NAME",
        "RUN",
        "PLACE",
        "STATE",
        ">READY",
        ">NOT YET",
        ">FAILED",
        "LOOKED AT",
        "NEXT",
    ]);
    for source in sources {
        let count = |states: &[SourceStepState]| {
            let counts = states.iter().filter_map(|state| source.n_steps.get(state));
            counts.sum::<u64>().to_string()
        };
        use SourceStepState::{Failed, Fetching, New, Ready, Verifying, Waiting};
        table.row([
            source.name.clone(),
            source.run.to_string(),
            place(&source.location),
            source
                .error
                .as_ref()
                .map_or_else(|| source.state.to_string(), |_| "error".to_owned()),
            count(&[Ready]),
            count(&[New, Waiting, Fetching, Verifying]),
            count(&[Failed]),
            or_none(source.synced_at.map(time)),
            or_none(source.next_sync_at.map(time)),
        ]);
    }
    table.render("no sources")
}

fn describe(source: &SourceRow) -> String {
    let watch = source.interval_s.map_or_else(
        || "once".to_owned(),
        |s| format!("every {}", humantime::format_duration(Duration::from_secs(s))),
    );
    let whole = source.marker.as_ref().map_or_else(
        || {
            format!(
                "unchanged for {}",
                humantime::format_duration(Duration::from_secs(source.settle_s))
            )
        },
        |marker| format!("`{marker}` is there"),
    );
    let mut told = vec![
        ("source", source.name.clone()),
        ("run", source.run.to_string()),
        ("place", place(&source.location)),
        ("state", source.state.to_string()),
        (
            "looked at",
            format!("{watch}, last {}", or_none(source.synced_at.map(time))),
        ),
        ("next", or_none(source.next_sync_at.map(time))),
        ("whole when", whole),
    ];
    told.extend(source.error.as_ref().map(|error| ("error", error.clone())));
    facts(&told)
}

fn steps_table(steps: &[SourceStep]) -> String {
    let mut table = Table::new([
        ">STEP", "NAME", ">TOKENS", ">FILES", ">SIZE", ">HELD", "STATE", "REMARKS",
    ]);
    for step in steps {
        let number = match (step.step, step.step_inferred, step.step_unsnapped) {
            (Some(number), _, Some(unsnapped)) => format!("{number} (inferred, {unsnapped})"),
            (Some(number), true, None) => format!("{number} (inferred)"),
            (Some(number), false, None) => number.to_string(),
            (None, ..) => NONE.to_owned(),
        };
        let remarks: Vec<&str> = step.message.iter().chain(&step.warnings).map(String::as_str).collect();
        table.row([
            number,
            step.name.clone(),
            or_none(step.tokens),
            step.n_files.to_string(),
            bytes(step.size_bytes),
            bytes(step.held_bytes),
            step.state.to_string(),
            remarks.join("; "),
        ]);
    }
    table.render("no checkpoints")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_bucket_a_folder_or_repositories() {
        let read = |text: &str| {
            location(
                &text.split(' ').map(str::to_owned).collect::<Vec<_>>(),
                None,
                None,
                None,
            )
        };
        assert!(matches!(
            read("s3://b/a/c").unwrap(),
            SourceLocation::S3 { bucket, prefix, .. } if bucket == "b" && prefix == "a/c"
        ));
        assert!(matches!(
            read("hf://a/b hf://a/c@v1").unwrap(),
            SourceLocation::Hub { repositories, .. } if repositories == ["a/b", "a/c@v1"]
        ));
        assert!(matches!(read("/data/run").unwrap(), SourceLocation::Folder { path } if path == "/data/run"));
        assert!(read("hf://a/b s3://b").is_err());
        assert!(read("data/run").unwrap_err().to_string().contains("data/run"));
    }
}
