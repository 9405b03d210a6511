//! `fineline tag`: set with two words, list with one, delete with `tag delete`.

use clap::{Args, Subcommand};
use fineline_api::{RunName, Tag as TagRow};
use serde_json::json;

use super::context::Context;
use super::failure::UserError;
use super::table::{Table, time};
use super::target::Target;
use super::{Ending, Outcome};

/// `fineline tag RUN@REF NAME` sets, `fineline tag RUN` lists, `fineline tag delete RUN NAME` deletes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Tag {
    #[command(subcommand)]
    command: Option<TagCommand>,
    /// The run to list tags of, or the checkpoint to tag, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]", required = true)]
    target: Option<Target>,
    /// The tag to point to the checkpoint, wherever it pointed before.
    #[arg(value_name = "TAG")]
    tag: Option<String>,
}

#[derive(Debug, Subcommand)]
enum TagCommand {
    /// Delete a tag; the checkpoint stays.
    Delete {
        /// The run, as NAMESPACE/NAME.
        run: RunName,
        /// The tag.
        tag: String,
    },
}

pub(crate) async fn run(context: &Context, command: Tag) -> Outcome {
    let client = context.client()?;
    if let Some(TagCommand::Delete { run, tag }) = command.command {
        client.delete_tag(&run, &tag).await?;
        context
            .printer
            .data(&json!({ "deleted": tag }), |_| format!("{tag} is deleted"))?;
        return Ok(Ending::Good);
    }
    let Some(Target { run, reference }) = command.target else {
        return Err(grammar("tag").into());
    };
    match (reference, command.tag) {
        (Some(reference), Some(tag)) => {
            let set = client.set_tag(&run, &tag, &reference).await?;
            context
                .printer
                .data(&set, |set| format!("{} points to {run}@{}", set.tag, set.step))?;
        }
        (None, None) => context
            .printer
            .data(&client.list_tags(&run).await?, |tags| table(tags))?,
        _ => return Err(grammar("tag").into()),
    }
    Ok(Ending::Good)
}

/// What is said when checkpoint and name do not come together.
pub(crate) fn grammar(noun: &str) -> UserError {
    UserError::new(
        format!("a {noun} is made of a checkpoint and a name"),
        format!("write `fineline {noun} RUN@REF NAME` to make one, `fineline {noun} RUN` to list them"),
    )
}

fn table(tags: &[TagRow]) -> String {
    let mut table = Table::new(["TAG", ">STEP", "DIGEST", "SET"]);
    for tag in tags {
        table.row([
            tag.tag.clone(),
            tag.step.to_string(),
            tag.digest.to_string(),
            time(tag.updated_at),
        ]);
    }
    table.render("no tags yet: set one with `fineline tag RUN@REF NAME`")
}
