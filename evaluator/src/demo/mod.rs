//! The demo's training job: a tiny LLaMA is trained for real and pushes its steps as any training job would; what it
//! prints are the scores that the registry serves.
//!
//! Data flows one way: `grammar` (sentences and items) → `train` (with `model`, `overlap`) → `checkpoint` (folders) →
//! the client's pusher; and back from the registry through `table`.

pub mod checkpoint;
pub mod grammar;
pub mod model;
pub mod overlap;
mod table;
pub mod tasks;
pub mod train;
pub mod vocabulary;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fineline_api::run::RunAttributes;
use fineline_api::{RunName, RunPattern};
use fineline_client::{Client, PushOptions, PushOutcome, Pusher, PusherOptions, apply_suite, wait};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use checkpoint::State;
use grammar::{Domain, Grammar, Item};
use overlap::Overlap;
use train::{TOKENS_PER_STEP, Training};
use vocabulary::Vocabulary;

/// The run that the demo pushes to.
pub const RUN: &str = "demo/tiny-llama";

/// Items of a domain.
const N_ITEMS: usize = 100;

/// How long the last evaluations may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the training job is told.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// The registry's address.
    #[arg(long = "server", env = "FINELINE_URL")]
    pub server: String,
    /// A token that may write to the demo's run and bind a suite to it.
    #[arg(long, env = "FINELINE_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1500)]
    pub steps: u64,
    /// Steps between two checkpoints; the first ones come closer together.
    #[arg(long, default_value_t = 100)]
    pub every: u64,
    /// Seed of facts, weights and batches.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Trains, pushes, and prints what the registry says of each step.
///
/// # Errors
/// When a step can't be pushed or gets no scores, or when training text holds items of the test.
pub async fn run(options: DemoOptions) -> Result<()> {
    let begun = Instant::now();
    let client = Client::new(&options.server, Some(&options.token))?;
    let run: RunName = RUN.parse().expect("it is a run's name");
    let scratch = tempfile::tempdir().context("a temporary folder")?;
    let (grammar, vocabulary) = (Grammar::new(options.seed), Vocabulary::of_grammar());
    let items = items(&grammar, options.seed);
    let overlap = Overlap::new(&items, &vocabulary);
    let training = Training::new(grammar, vocabulary.clone(), overlap, options.steps, options.seed)?;
    let attributes = RunAttributes {
        tokens_per_step: Some(TOKENS_PER_STEP),
        ..RunAttributes::default()
    };
    client.create_run(&run, &attributes).await?;
    let suite = tasks::write(&scratch.path().join("suite"), &items)?;
    apply_suite(&client, &suite, &RunPattern::One(run.clone()), false).await?;
    say(&introduction(&training, &items))?;

    let steps = checkpoint_steps(options.steps, options.every);
    let pusher = Pusher::new(client.clone(), run.clone(), &PusherOptions { queue: steps.len() });
    let (told, states) = unbounded_channel();
    let folder = scratch.path().join("checkpoints");
    let job = move || train(training, &vocabulary, &steps, &folder, &pusher, &told).map(|training| (training, pusher));
    let job = tokio::task::spawn_blocking(job);
    let finish = async {
        let (training, pusher) = job.await.context("the training panicked")??;
        let trained = begun.elapsed();
        Ok::<_, anyhow::Error>((training, trained, pusher.finish().await?))
    };
    let mut out = std::io::stdout();
    let ((training, trained, pushed), ()) = tokio::try_join!(finish, table::follow(&client, &run, states, &mut out))?;
    let outcome = wait(&client, &run, None, Some(PATIENCE), |_| {}).await?;
    ensure!(
        outcome.is_good(),
        "not every step was evaluated: see `fineline eval list {RUN}`"
    );
    say(&summary(
        &training.overlap,
        items.len(),
        trained,
        begun.elapsed(),
        &pushed,
        outcome.n_done,
    ))?;
    ensure!(
        training.overlap.n_seen() == 0,
        "{} prompts of the test stand in the training text",
        training.overlap.n_seen()
    );
    Ok(())
}

/// The test's items, as many of each domain.
pub fn items(grammar: &Grammar, seed: u64) -> Vec<Item> {
    let mut rng = StdRng::seed_from_u64(seed ^ 2);
    let of = |domain| grammar.items(domain, N_ITEMS, &mut rng);
    Domain::ALL.into_iter().flat_map(of).collect()
}

/// Every `every`th step and the last; before the first of them some more, where the curves move most.
fn checkpoint_steps(n_steps: u64, every: u64) -> Vec<u64> {
    let every = every.max(1);
    let mut steps: Vec<u64> = [0, every / 4, every / 2]
        .into_iter()
        .chain((every..n_steps).step_by(every as usize))
        .collect();
    steps.retain(|step| *step < n_steps);
    steps.push(n_steps);
    steps.dedup();
    steps
}

/// Trains to the last of `steps`, saving and pushing each.
fn train(
    mut training: Training,
    vocabulary: &Vocabulary,
    steps: &[u64],
    folder: &Path,
    pusher: &Pusher,
    told: &UnboundedSender<State>,
) -> Result<Training> {
    let (mut step, mut loss) = (0, None);
    for &checkpoint in steps {
        while step < checkpoint {
            loss = Some(training.step()?);
            step += 1;
        }
        let state = State {
            step,
            tokens: step * TOKENS_PER_STEP,
            loss,
        };
        let dir: PathBuf = folder.join(format!("step-{step}"));
        checkpoint::save(&dir, &training.model, vocabulary, state)?;
        // Tokens and loss stand in trainer_state.json, where the push finds them.
        pusher.push(step, &dir, PushOptions::default())?;
        // Nobody listens any more only when the table has failed, which ends the demo by itself.
        let _ = told.send(state);
    }
    Ok(training)
}

fn introduction(training: &Training, items: &[Item]) -> String {
    let n_parameters: usize = training.model.vars().values().map(|var| var.elem_count()).sum();
    let mut text =
        format!("training a LLaMA of {n_parameters} parameters on a grammar with four domains; one item of each:\n");
    for domain in Domain::ALL {
        if let Some(item) = items.iter().find(|item| item.domain == domain) {
            let choices = item.choices.join(" | ");
            text.push_str(&format!("  {:<10} {} … {choices}\n", domain.task(), item.context));
        }
    }
    text
}

fn summary(
    overlap: &Overlap,
    n_items: usize,
    trained: Duration,
    all: Duration,
    pushed: &[PushOutcome],
    n_evaluations: u64,
) -> String {
    let sent: u64 = pushed.iter().map(|outcome| outcome.sent_bytes).sum();
    let size: u64 = pushed.iter().map(|outcome| outcome.size_bytes).sum();
    format!(
        "\n{} checkpoints pushed: {:.1} MB, {:.1} MB sent; {n_evaluations} evaluations\n\
         {} of {n_items} test prompts occur in the {} tokens of training text\n\
         trained in {} s, all scores after {} s",
        pushed.len(),
        size as f64 / 1e6,
        sent as f64 / 1e6,
        overlap.n_seen(),
        overlap.n_tokens(),
        trained.as_secs(),
        all.as_secs(),
    )
}

/// A line of the demo's own words.
fn say(text: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_closer_together_at_first_and_the_last_step_is_one() {
        assert_eq!(checkpoint_steps(1000, 400), [0, 100, 200, 400, 800, 1000]);
        assert_eq!(checkpoint_steps(800, 400), [0, 100, 200, 400, 800]);
        assert_eq!(checkpoint_steps(1, 1), [0, 1]);
        assert_eq!(checkpoint_steps(3, 100), [0, 3]);
    }
}
