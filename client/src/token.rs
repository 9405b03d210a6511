//! Tokens, an administrator's business.

use fineline_api::{CreateToken, CreatedToken, Token, path};
use uuid::Uuid;

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Makes a token; its secret is shown this once.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] without the scope `admin`.
    pub async fn create_token(&self, token: &CreateToken) -> Result<CreatedToken> {
        self.json(Call::post(format!("{}/tokens", path::API)).json(token)).await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// [`crate::Error::Forbidden`] without the scope `admin`.
    pub async fn list_tokens(&self) -> Result<Vec<Token>> {
        self.json(Call::get(format!("{}/tokens", path::API))).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none by that id.
    pub async fn delete_token(&self, id: Uuid) -> Result<()> {
        self.done(Call::delete(format!("{}/tokens/{id}", path::API))).await
    }
}
