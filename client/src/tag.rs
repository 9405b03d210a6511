//! Tags and releases of a run.

use fineline_api::{CreateRelease, Reference, Release, RunName, SetTag, Tag, path};

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// A run's tags, by name.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_tags(&self, run: &RunName) -> Result<Vec<Tag>> {
        self.json(Call::get(path::run(run, "/tags"))).await
    }

    /// Points a tag to a checkpoint, wherever it pointed before.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the run has no ready checkpoint by that reference.
    pub async fn set_tag(&self, run: &RunName, tag: &str, reference: &Reference) -> Result<Tag> {
        let body = SetTag {
            reference: reference.clone(),
        };
        self.json(Call::put(tag_path(run, tag)).json(&body)).await
    }

    /// Takes a tag away; the checkpoint stays.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is no such tag.
    pub async fn delete_tag(&self, run: &RunName, tag: &str) -> Result<()> {
        self.done(Call::delete(tag_path(run, tag))).await
    }

    /// A run's releases, by name.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_releases(&self, run: &RunName) -> Result<Vec<Release>> {
        self.json(Call::get(path::run(run, "/releases"))).await
    }

    /// Makes a release.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when the name is taken.
    pub async fn create_release(&self, run: &RunName, release: &CreateRelease) -> Result<Release> {
        self.json(Call::post(path::run(run, "/releases")).json(release)).await
    }
}

fn tag_path(run: &RunName, tag: &str) -> String {
    path::run(run, &format!("/tags/{}", path::segment(tag)))
}
