//! The command line: what can be said, who does it, and how it ends.
//!
//! One file per command; what they share is `context` (settings, client), `target` (`RUN@REF`), `printer`, `table`
//! and `bar`.
//!
//! **Invariant:** exit code 0 for success, 1 for what the user can mend, 2 for anything else; data on stdout, words on
//! stderr. `eval compare` ends as `diff` does: 1 is the answer that the two differ, 2 that they can't be compared.

mod bar;
mod config;
mod context;
mod delete;
mod eval;
mod failure;
mod library;
mod login;
mod ls;
mod printer;
mod pull;
mod push;
mod release;
mod run;
mod scores;
mod show;
mod source;
mod storage;
mod suite;
mod table;
mod tag;
mod target;
mod token;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use context::Context;
use printer::Printer;

/// Push the steps of a training run to a Fineline registry, pull them back, and read their scores.
#[derive(Debug, Parser)]
#[command(name = "fineline", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// The URL of the registry; else the one that `fineline login` kept is used.
    #[arg(long, env = "FINELINE_URL", global = true)]
    url: Option<String>,
    /// The token; else the one that `fineline login` kept for this URL is used.
    #[arg(long, env = "FINELINE_TOKEN", global = true, hide_env_values = true)]
    token: Option<String>,
    /// Print data as one JSON document.
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but data and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a token against the registry and keep both for later commands.
    Login(login::Login),
    /// Create and delete runs, look at them, say which steps they keep.
    #[command(subcommand)]
    Run(run::Run),
    /// Push a folder as a step of a run; the same command again goes on after any interruption.
    Push(push::Push),
    /// Pull a checkpoint into a folder; the same command again goes on after any interruption.
    Pull(pull::Pull),
    /// List the checkpoints of a run, or the files of a checkpoint.
    Ls(ls::Ls),
    /// Delete a checkpoint of a run; its scores stay unless asked.
    Delete(delete::Delete),
    /// Show a checkpoint.
    Show(show::Show),
    /// Set, list and delete tags, the names of checkpoints that can move.
    Tag(tag::Tag),
    /// Make and list releases, the names of checkpoints that never move.
    Release(release::Release),
    /// List the tasks that are built in, apply suites of tasks to runs, so that every step is evaluated by itself.
    #[command(subcommand)]
    Suite(suite::Suite),
    /// Show the scores of a run by step, or post scores from another harness.
    Scores(scores::Scores),
    /// Look at evaluations, retry, cancel, export them as lm-eval's files, and compare such files.
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Wait until nothing of a run is under way; fail when something failed.
    Wait(wait::Wait),
    /// Follow what happens to a run until ctrl-c.
    Watch(watch::Watch),
    /// Let checkpoints come in by themselves from buckets, Hubs and folders; for administrators.
    #[command(subcommand)]
    Source(source::Source),
    /// Look after the store; for administrators.
    #[command(subcommand)]
    Storage(storage::Storage),
    /// Make, list and revoke tokens; for administrators.
    #[command(subcommand)]
    Token(token::Token),
}

/// How a command ended that met no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All is well.
    Good,
    /// The answer is no: something that was waited for failed.
    Bad,
}

type Outcome = anyhow::Result<Ending>;

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    fineline_format::return_large_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::from(error.use_stderr());
            // Nothing is left to do when the help can't be printed.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let printer = Printer::new(cli.global.json, cli.global.quiet);
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli, printer));
            // Not waited for: a file that is being hashed for a push that failed is of no more use.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::Bad) => ExitCode::from(1),
        Err(error) => failure::report(printer, &error),
    }
}

async fn dispatch(cli: Cli, printer: Printer) -> Outcome {
    let context = Context::new(cli.global, printer);
    match cli.command {
        Command::Login(command) => login::run(&context, command).await,
        Command::Run(command) => run::run(&context, command).await,
        Command::Push(command) => push::run(&context, command).await,
        Command::Pull(command) => pull::run(&context, command).await,
        Command::Ls(command) => ls::run(&context, command).await,
        Command::Delete(command) => delete::run(&context, command).await,
        Command::Show(command) => show::run(&context, command).await,
        Command::Tag(command) => tag::run(&context, command).await,
        Command::Release(command) => release::run(&context, command).await,
        Command::Suite(command) => suite::run(&context, command).await,
        Command::Scores(command) => scores::run(&context, command).await,
        Command::Eval(command) => eval::run(&context, command).await,
        Command::Wait(command) => wait::run(&context, command).await,
        Command::Watch(command) => watch::run(&context, command).await,
        Command::Source(command) => source::run(&context, command).await,
        Command::Storage(command) => storage::run(&context, command).await,
        Command::Token(command) => token::run(&context, command).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_its_help() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "`{name}` has no help");
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "`{name}` `{}` has no help",
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_grammar_reads_what_the_documents_say() {
        for line in [
            "fineline run create lab/a --tokens-per-step 2048 --meta k=v",
            "fineline run tokenizer lab/a lab/tokenizer@1 --backfill",
            "fineline push lab/a 512 dir --tokens 1048576 --loss 4.5 --meta k=v --tag best/copa --label ckpt_1 --replace",
            "fineline push lab/a 512 rank-0 --session job-7",
            "fineline push lab/a 512 --session job-7 --commit --files 9 --tag best/copa",
            "fineline push lab/a 512 --session job-7 --abort",
            "fineline pull lab/a@512 dir --overwrite",
            "fineline ls lab/a --step-min 3 --all --json",
            "fineline tag lab/a@512 good",
            "fineline tag delete lab/a good",
            "fineline delete lab/a@512 --force --scores --dry-run",
            "fineline run delete lab/a --force --dry-run",
            "fineline run retain lab/a --keep-last 10 --keep-every 1000 --dry-run",
            "fineline run retain lab/a --all",
            "fineline storage gc --dry-run",
            "fineline source add amber hf://LLM360/Amber --run lab/amber --select ckpt_* --step main=359 --watch --dry-run",
            "fineline source add small s3://bucket/run --run lab/a --endpoint http://s3.lan --settle 30s --watch 5m",
            "fineline source add olr hf://m-a-p/a-1.00B hf://m-a-p/a-2.00B --run lab/o --tokens-per-step 4194304",
            "fineline source sync amber",
            "fineline release lab/a@512 v1 --notes text",
            "fineline suite list --json",
            "fineline suite applied",
            "fineline suite apply hellaswag --run lab/* --data s3://bucket/eval --limit 100 --num-fewshot 10",
            "fineline suite apply mmlu --run lab/* --data hf://datasets/cais/mmlu@refs/convert/parquet",
            "fineline suite apply suite.yaml --run lab/* --backfill",
            "fineline suite apply suite.yaml --run lab/* --backfill coarse --dry-run",
            "fineline suite apply suite.yaml --run lab/* --backfill newest=20 --yes",
            "fineline suite apply suite.yaml --run lab/* --every 1000 --order coarse",
            "fineline scores lab/a --task t --csv",
            "fineline scores post lab/a@512 scores.json --harness lm-eval",
            "fineline eval export lab/a@512 out --suite basics --overwrite",
            "fineline eval compare ours theirs --tolerance 1e-3 --only-common",
            "fineline wait lab/a --timeout 60",
            "fineline token create ci --scope read --scope write --run lab/*",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(
            Cli::try_parse_from("fineline pull lab/a dir".split(' ')).is_err(),
            "a pull names a checkpoint"
        );
        assert!(
            Cli::try_parse_from("fineline push lab/a 512".split(' ')).is_err(),
            "a push needs a folder, or a session to commit"
        );
    }
}
