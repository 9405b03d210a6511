//! Sources: places outside of the registry whose checkpoints come in by themselves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};

use crate::run::RunName;
use crate::text::words;

/// How long a step's files must have been as they are, when nothing else is said: an upload of several files in
/// several requests takes minutes.
pub const DEFAULT_SETTLE_S: u64 = 300;

/// How often a watched source is looked at, when nothing else is said.
pub const DEFAULT_INTERVAL_S: u64 = 600;

/// The public Hub.
pub const PUBLIC_HUB: &str = "https://huggingface.co";

/// Where a source's checkpoints lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourceLocation {
    /// A prefix of a bucket; each folder right below it is a checkpoint.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Where in it; the whole bucket when empty.
        #[serde(default)]
        prefix: String,
        /// `https://HOST[:PORT]` of a server that speaks S3's protocol; AWS itself when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// Its region; `us-east-1` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// Repositories of a server that speaks the Hub's protocol. One repository: each branch is a checkpoint. Several: each
    /// repository is one, at its `main`, or at what follows an `@` in its name.
    Hub {
        /// `https://HOST[:PORT][/PATH]`; the public Hub when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// `NAMESPACE/NAME` or `NAMESPACE/NAME@REVISION`.
        repositories: Vec<String>,
        /// What is a checkpoint; when absent, branches of one repository and repositories of several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoints: Option<HubCheckpoints>,
    },
    /// A folder of the server's machine, below one of its `--source-root`s; each folder right below it is a checkpoint.
    Folder {
        /// Its absolute path.
        path: String,
    },
}

words! {
    /// What of a Hub is one checkpoint.
    pub enum HubCheckpoints {
        /// A branch.
        Branches = "branches",
        /// A repository.
        Repositories = "repositories",
    }
}

/// How what is found becomes the steps of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepMapping {
    /// Only names that one of these matches, `*` being any text; all names when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub select: Vec<String>,
    /// How names are read that the step grammar does not know: text with `{step}`, `{tokens}` and `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The steps of names that say none: `main` has one only here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, u64>,
    /// The tokens of steps, by name; before everything that is worked out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, u64>,
    /// Tokens of one step: gives tokens where a name says the step, and the step where it says the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_step: Option<u64>,
    /// Tokens seen at step 0, where steps are counted from the first checkpoint on; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_at_step_0: Option<u64>,
    /// A step that is worked out from rounded tokens is moved to the nearest multiple of this, which must be within the
    /// rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_multiple: Option<u64>,
    /// The folder of a checkpoint in which its files lie; `{name}` stands for the checkpoint's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subfolder: Option<String>,
}

/// Makes a source, or with `POST …/sources/preview` says what it would bring.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateSource {
    /// What it is called: 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// The run that it fills; it must be there.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub run: RunName,
    /// Where the checkpoints lie.
    pub location: SourceLocation,
    /// How they become steps.
    #[serde(default)]
    pub mapping: StepMapping,
    /// Seconds between two looks, a tenth more or less; looked at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// Seconds for which a checkpoint's files must have been as they are; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_s: Option<u64>,
    /// A file whose presence says that a checkpoint is whole, in place of the settle time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Whether optimizer states and random states are kept too.
    #[serde(default)]
    pub keep_optimizer: bool,
    /// A place of the same kind and server whose tokenizer becomes the run's default: `NAMESPACE/NAME[@REVISION]` of a Hub,
    /// else a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// What opens the place: a Hub's token, or `ACCESS_KEY_ID:SECRET_ACCESS_KEY`. Never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A variable of the server's environment that holds it instead; its name begins with `FINELINE_SOURCE_SECRET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// What a webhook or a bucket's notification must say to be believed, 16 characters at least. Never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
}

impl CreateSource {
    /// A source that is looked at once, by the defaults of everything.
    pub fn new(name: impl Into<String>, run: RunName, location: SourceLocation) -> Self {
        Self {
            name: name.into(),
            run,
            location,
            mapping: StepMapping::default(),
            interval_s: None,
            settle_s: None,
            marker: None,
            keep_optimizer: false,
            tokenizer: None,
            secret: None,
            secret_env: None,
            webhook_secret: None,
        }
    }
}

impl std::fmt::Debug for CreateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without its secrets.
        f.debug_struct("CreateSource")
            .field("name", &self.name)
            .field("run", &self.run)
            .field("location", &self.location)
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

words! {
    /// What a source is about to do.
    pub enum SourceState {
        /// It is looked at when its time comes, or once.
        Active = "active",
        /// It is not looked at.
        Paused = "paused",
        /// It was to be looked at once, and nothing is left to do.
        Done = "done",
    }
}

/// A source as it is shown: without its secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Source {
    /// What it is called.
    pub name: String,
    /// The run that it fills.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub run: RunName,
    /// Where the checkpoints lie.
    pub location: SourceLocation,
    /// How they become steps.
    pub mapping: StepMapping,
    /// Seconds between two looks; absent for one that is looked at once.
    pub interval_s: Option<u64>,
    /// Seconds for which a checkpoint's files must have been as they are.
    pub settle_s: u64,
    /// The file that says that a checkpoint is whole.
    pub marker: Option<String>,
    /// Whether optimizer states are kept.
    pub keep_optimizer: bool,
    /// Where the run's default tokenizer comes from.
    pub tokenizer: Option<String>,
    /// Whether it has a secret, stored or in the environment.
    pub has_secret: bool,
    /// Whether it can be told of news.
    pub has_webhook_secret: bool,
    /// What it is about to do.
    pub state: SourceState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last looked at.
    pub synced_at: Option<DateTime<Utc>>,
    /// When it is looked at next.
    pub next_sync_at: Option<DateTime<Utc>>,
    /// Why the last look failed as a whole.
    pub error: Option<String>,
    /// How many of its steps are in which state.
    pub n_steps: BTreeMap<SourceStepState, u64>,
}

words! {
    /// How far a checkpoint of a source is.
    pub enum SourceStepState {
        /// It would come; only a preview says so.
        New = "new",
        /// It is not whole yet, or not for long enough.
        Waiting = "waiting",
        /// Its bytes are coming in.
        Fetching = "fetching",
        /// They are there, and read back before anybody sees them.
        Verifying = "verifying",
        /// It is a step of the run.
        Ready = "ready",
        /// It can't come in as it is; it is tried again when the source changes, or when its time comes.
        Failed = "failed",
        /// It is no step: nothing says which.
        Ignored = "ignored",
    }
}

/// A checkpoint of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceStep {
    /// Its name in the source: a branch, a folder, a repository.
    pub name: String,
    /// Its step, when anything says one.
    pub step: Option<u64>,
    /// Whether the step was worked out from rounded tokens.
    pub step_inferred: bool,
    /// The step before it was moved to a multiple.
    pub step_unsnapped: Option<u64>,
    /// Tokens seen, when anything says so.
    pub tokens: Option<u64>,
    /// Files that come in with it.
    pub n_files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Bytes of them that the namespace holds, as far as the place tells digests: they are not read.
    pub held_bytes: u64,
    /// How far it is.
    pub state: SourceStepState,
    /// What it waits for, or why it failed.
    pub message: Option<String>,
    /// What looks wrong.
    pub warnings: Vec<String>,
    /// The checkpoint that it became.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub checkpoint: Option<Digest>,
}

/// What a source would bring.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourcePreview {
    /// By step, those without one last.
    pub steps: Vec<SourceStep>,
    /// What looks wrong of the whole.
    pub warnings: Vec<String>,
}
