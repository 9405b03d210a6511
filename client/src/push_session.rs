//! Push sessions: how a step's files come in. `push` does all of it; these are its single calls.

use fineline_api::{CheckpointFile, CommitPushSession, CreatePushSession, PushSession, RunName, path};
use fineline_format::Digest;
use uuid::Uuid;

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Opens a session for a step, or joins the one of that name. Without a name, sent twice it opens two; the one that
    /// nobody speaks to expires.
    ///
    /// # Errors
    /// [`crate::Error::StepExists`] when the step holds another manifest and `replace` is off.
    pub async fn create_push_session(&self, run: &RunName, session: &CreatePushSession) -> Result<PushSession> {
        self.json(Call::post_repeatable(path::run(run, "/push-sessions")).json(session))
            .await
    }

    /// A session; the server waits up to `wait_s` (at most 30) seconds for it to leave `verifying`.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the run has none by that id.
    pub async fn get_push_session(&self, run: &RunName, id: Uuid, wait_s: u64) -> Result<PushSession> {
        self.json(Call::get(session_path(run, id, "")).wait_s(wait_s)).await
    }

    /// Adds a file with its recipe; the same path again takes the other's place, but not in a session with a name.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the file breaks a rule, [`crate::Error::Conflict`] when another rank added other
    /// bytes at that path.
    pub async fn add_push_session_file(&self, run: &RunName, id: Uuid, file: &CheckpointFile) -> Result<()> {
        self.done(Call::post_repeatable(session_path(run, id, "/files")).json(file))
            .await
    }

    /// The files that a session has so far, by path, without their chunks.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the run has none by that id.
    pub async fn list_push_session_files(&self, run: &RunName, id: Uuid) -> Result<Vec<CheckpointFile>> {
        self.json(Call::get(session_path(run, id, "/files"))).await
    }

    /// Ends a session: its files become the step's checkpoint once they are verified.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the files do not make that manifest, [`crate::Error::StepExists`] when another
    /// push came first.
    pub async fn commit_push_session(&self, run: &RunName, id: Uuid, manifest_digest: Digest) -> Result<PushSession> {
        let call = Call::post_repeatable(session_path(run, id, "/commit"));
        self.json(call.json(&CommitPushSession { manifest_digest })).await
    }

    /// Keeps a session from expiring.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when it is no longer open.
    pub async fn heartbeat_push_session(&self, run: &RunName, id: Uuid) -> Result<()> {
        self.done(Call::post_repeatable(session_path(run, id, "/heartbeat")))
            .await
    }

    /// Takes a session back; chunks that arrived stay known to the run for a while.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the run has none by that id.
    pub async fn abort_push_session(&self, run: &RunName, id: Uuid) -> Result<()> {
        self.done(Call::delete(session_path(run, id, ""))).await
    }
}

fn session_path(run: &RunName, id: Uuid, rest: &str) -> String {
    path::run(run, &format!("/push-sessions/{id}{rest}"))
}
