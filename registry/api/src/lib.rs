//! The wire types of Fineline's REST API `/api/v1`: what registry, client and evaluator say to each other.
//!
//! No I/O and no rules of the service live here. With the feature `openapi` every type has its schema.
//!
//! **Invariant:** requests refuse unknown fields, responses tolerate them; digests are `sha256:<hex>`, times RFC 3339
//! in UTC, sizes bytes.

mod text;

pub mod checkpoint;
pub mod chunk;
pub mod deletion;
pub mod direct;
pub mod error;
pub mod evaluation;
pub mod event;
pub mod page;
pub mod path;
pub mod push_session;
pub mod range;
pub mod reference;
pub mod result;
pub mod run;
pub mod score;
pub mod source;
pub mod storage;
pub mod suite;
pub mod tag;
pub mod token;

pub use checkpoint::{Checkpoint, CheckpointFile, CheckpointState, ChunkRef, EvaluationCounts, Tensor};
pub use chunk::{MissingChunks, MissingChunksQuery};
pub use deletion::{DeletedCheckpoint, Deletion, Retention};
pub use direct::{ChunkLocation, ChunkLocations, LocateChunks, StageFrames, StagingPlace, StagingPlaces};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use evaluation::{
    ClaimEvaluation, CompleteEvaluation, Evaluation, EvaluationState, FailEvaluation, Lease, Progress, RenewedLease,
    ScoredTask, TokenizerFile,
};
pub use event::{Event, EventKind};
pub use page::Page;
pub use push_session::{CommitPushSession, CreatePushSession, PushSession, PushSessionState};
pub use reference::Reference;
pub use result::{result_digest, scores_digest};
pub use run::{CreateRun, DefaultTokenizer, Run, RunName, RunPattern, SetTokenizer};
pub use score::{ExternalScore, PostScores, Score, TaskScore};
pub use source::{
    CreateSource, HubCheckpoints, Source, SourceLocation, SourcePreview, SourceState, SourceStep, SourceStepState,
    StepMapping,
};
pub use storage::{CollectGarbage, FrameCount, GarbageReport};
pub use suite::{Backfill, BackfillPlan, Binding, CreateBinding, StepOrder, Suite};
pub use tag::{CreateRelease, Release, SetTag, Tag};
pub use token::{CreateToken, CreatedToken, Scope, Token};
