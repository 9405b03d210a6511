//! Sources, an administrator's business.

use fineline_api::{CreateSource, Source, SourcePreview, SourceStep, path};

use reqwest::header::{HeaderName, HeaderValue};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::http::Client;

fn at(name: &str, rest: &str) -> String {
    format!("{}/sources/{}{rest}", path::API, path::segment(name))
}

impl Client {
    /// Makes a source: its checkpoints come in by themselves from now on.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] without the scope `admin` for all runs.
    pub async fn create_source(&self, source: &CreateSource) -> Result<Source> {
        self.json(Call::post(format!("{}/sources", path::API)).json(source))
            .await
    }

    /// What a source would bring; nothing is made.
    ///
    /// # Errors
    /// As [`Client::create_source`].
    pub async fn preview_source(&self, source: &CreateSource) -> Result<SourcePreview> {
        self.json(Call::post_repeatable(at("preview", "")).json(source)).await
    }

    /// All sources, without their secrets.
    ///
    /// # Errors
    /// As [`Client::create_source`].
    pub async fn list_sources(&self) -> Result<Vec<Source>> {
        self.json(Call::get(format!("{}/sources", path::API))).await
    }

    /// A source.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none of that name.
    pub async fn get_source(&self, name: &str) -> Result<Source> {
        self.json(Call::get(at(name, ""))).await
    }

    /// The checkpoints of a source and how far each is, by step, those without one last.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none of that name.
    pub async fn list_source_steps(&self, name: &str) -> Result<Vec<SourceStep>> {
        self.json(Call::get(at(name, "/steps"))).await
    }

    /// Lets a source be looked at at once, one that is paused or done too.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none of that name.
    pub async fn sync_source(&self, name: &str) -> Result<Source> {
        self.json(Call::post_repeatable(at(name, "/sync"))).await
    }

    /// Pauses a source.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none of that name.
    pub async fn pause_source(&self, name: &str) -> Result<Source> {
        self.json(Call::post_repeatable(at(name, "/pause"))).await
    }

    /// Forgets a source; the steps that came of it stay.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none of that name.
    pub async fn delete_source(&self, name: &str) -> Result<()> {
        self.done(Call::delete(at(name, ""))).await
    }

    /// Tells a source that there is news, as a webhook does.
    ///
    /// # Errors
    /// [`crate::Error::Unauthorized`] when the secret is another.
    pub async fn hear_source(&self, name: &str, secret: &str) -> Result<()> {
        let mut value = HeaderValue::from_str(secret).map_err(|_| {
            Error::Configuration("the webhook's secret can't be a header: use letters and digits".to_owned())
        })?;
        value.set_sensitive(true);
        let header = HeaderName::from_static("x-webhook-secret");
        self.done(Call::post_repeatable(at(name, "/events")).header(header, value))
            .await
    }
}
