//! `fineline tag`: set with two words, list with one, delete with `--delete`.

use clap::Args;
use fineline_api::Tag as TagRow;
use serde_json::json;

use super::context::Context;
use super::failure::UserError;
use super::table::{Table, time};
use super::target::Target;
use super::{Ending, Outcome};

/// `fineline tag RUN@REF NAME` sets, `fineline tag RUN` lists, `fineline tag RUN --delete NAME` deletes.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The run to list tags of or delete one from, or the checkpoint to tag, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]")]
    target: Target,
    /// The tag to point to the checkpoint, wherever it pointed before.
    #[arg(value_name = "TAG", conflicts_with = "delete")]
    tag: Option<String>,
    /// The tag to delete; the checkpoint stays.
    #[arg(long, value_name = "TAG")]
    delete: Option<String>,
}

pub(crate) async fn run(context: &Context, command: Tag) -> Outcome {
    let client = context.client()?;
    let Target { run, reference } = command.target;
    match (reference, command.tag, command.delete) {
        (Some(reference), Some(tag), _) => {
            let set = client.set_tag(&run, &tag, &reference).await?;
            context
                .printer
                .data(&set, |set| format!("{} points to {run}@{}", set.tag, set.step))?;
        }
        (None, None, Some(tag)) => {
            client.delete_tag(&run, &tag).await?;
            context
                .printer
                .data(&json!({ "deleted": tag }), |_| format!("{tag} is deleted"))?;
        }
        (None, None, None) => context
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
