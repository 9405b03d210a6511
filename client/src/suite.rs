//! Suites of tasks and their bindings to runs. Reading a suite from files stands in `suite_file`.

use bytes::Bytes;
use fineline_api::suite::{DEFINITION_PART, PATTERN_PART};
use fineline_api::{BackfillPlan, Binding, CreateBinding, RunPattern, Suite, path};
use fineline_format::Digest;
use fineline_format::suite::SuiteDefinition;
use uuid::Uuid;

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Uploads a suite for the runs of `pattern`; `blobs` are the files that the definition names.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when a task or a file breaks a rule.
    pub async fn create_suite(
        &self,
        pattern: &RunPattern,
        definition: &SuiteDefinition,
        blobs: Vec<(Digest, Bytes)>,
    ) -> Result<Suite> {
        let json = serde_json::to_vec(definition).expect("a definition has nothing that JSON lacks");
        let mut parts = vec![
            (PATTERN_PART.to_owned(), Bytes::from(pattern.to_string())),
            (DEFINITION_PART.to_owned(), Bytes::from(json)),
        ];
        parts.extend(blobs.into_iter().map(|(digest, bytes)| (digest.to_string(), bytes)));
        self.json(Call::post_repeatable(format!("{}/suites", path::API)).form(parts))
            .await
    }

    /// The suites bound to runs that the token reads.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_suites(&self) -> Result<Vec<Suite>> {
        self.json(Call::get(format!("{}/suites", path::API))).await
    }

    /// A suite's definition.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none that the token may know of.
    pub async fn get_suite(&self, digest: Digest) -> Result<SuiteDefinition> {
        self.json(Call::get(suite_path(digest, ""))).await
    }

    /// A file of a suite.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the suite has none by that digest.
    pub async fn get_suite_blob(&self, suite: Digest, blob: Digest) -> Result<Bytes> {
        let call = Call::get(suite_path(suite, &format!("/blobs/{}", path::segment(blob))));
        Ok(self.send(&call).await?.body)
    }

    /// Binds a suite to runs.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is no such suite.
    pub async fn create_binding(&self, binding: &CreateBinding) -> Result<Binding> {
        self.json(Call::post_repeatable(format!("{}/bindings", path::API)).json(binding))
            .await
    }

    /// What a binding with a back-fill would queue, without making it; the suite need not be uploaded yet.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] when the token is not for all of the runs.
    pub async fn plan_binding(&self, binding: &CreateBinding) -> Result<BackfillPlan> {
        self.json(Call::post_repeatable(format!("{}/bindings/plan", path::API)).json(binding))
            .await
    }

    /// The bindings to runs that the token reads.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_bindings(&self) -> Result<Vec<Binding>> {
        self.json(Call::get(format!("{}/bindings", path::API))).await
    }

    /// Takes a binding away; scores stay.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none by that id.
    pub async fn delete_binding(&self, id: Uuid) -> Result<()> {
        self.done(Call::delete(format!("{}/bindings/{id}", path::API))).await
    }
}

fn suite_path(digest: Digest, rest: &str) -> String {
    format!("{}/suites/{}{rest}", path::API, path::segment(digest))
}
