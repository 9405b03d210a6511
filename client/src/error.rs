//! What can go wrong for a caller of the registry, one variant per decision that the caller can take.
//!
//! Only `http` makes the variants that carry a [`Refusal`]; everything local is made where it is found.
//!
//! **Invariant:** no token and no query of a URL ever stands in a message.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fineline_api::{ErrorCode, ErrorDetail};
use fineline_format::{Digest, FormatError};

/// What every call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An answer of the server that is an error.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// What the server says to do about it.
    pub hint: Option<String>,
    /// Finds the request in the server's log; empty when something before the server answered.
    pub request_id: String,
    /// The URL that was asked, without its query.
    pub url: String,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No token, or one that is unknown, expired or revoked.
    #[error("{}", .0.message)]
    Unauthorized(Box<Refusal>),
    /// The token is good but lacks the scope.
    #[error("{}", .0.message)]
    Forbidden(Box<Refusal>),
    /// There is no such thing, or the token may not know of it.
    #[error("{}", .0.message)]
    NotFound(Box<Refusal>),
    /// The step holds other bytes.
    #[error("{}", .0.message)]
    StepExists(Box<Refusal>),
    /// The thing exists already or changed under the caller.
    #[error("{}", .0.message)]
    Conflict(Box<Refusal>),
    /// The lease is expired or belongs to another worker: drop the work.
    #[error("{}", .0.message)]
    LeaseLost(Box<Refusal>),
    /// The request or its content is refused: change it.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// Bytes do not have the digest that names them.
    #[error("{}", .0.message)]
    DigestMismatch(Box<Refusal>),
    /// The store has no room for new bytes.
    #[error("{}", .0.message)]
    StoreFull(Box<Refusal>),
    /// The server asks to come later, and the time for that is spent.
    #[error("{}", .0.message)]
    Unavailable(Box<Refusal>),
    /// A fault of the server.
    #[error("{} (status {}, request `{}`)", .0.message, .0.status, .0.request_id)]
    Server(Box<Refusal>),
    /// No connection, or one that broke, also after retries.
    #[error("can't reach `{url}`")]
    Connection {
        /// Without its query.
        url: String,
        /// What the transport says.
        source: reqwest::Error,
    },
    /// Connected, and then nothing moved, also after retries.
    #[error("`{url}` did not answer: no byte moved for {} s", waited.as_secs_f64())]
    Stalled {
        /// Without its query.
        url: String,
        /// For how long.
        waited: Duration,
    },
    /// The server's answer is none of this protocol.
    #[error("`{url}` gave an answer that can't be understood: {reason}")]
    Protocol {
        /// Without its query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client was made with something that can't work.
    #[error("{0}")]
    Configuration(String),
    /// A local file could not be read or written.
    #[error("can't {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The local folder can't be pushed, pulled into or applied as it is.
    #[error("{0}")]
    Folder(String),
    /// Data of a suite can't be read from a bucket or the Hub.
    #[error("can't read data from `{url}`: {reason}")]
    Data {
        /// Without its query.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A local file's content is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file changed while it was being pushed.
    #[error("`{}` changed while it was being pushed: push again when nothing writes to it", .0.display())]
    Changed(PathBuf),
    /// A step can't be read: it is still coming in, or the server verified it and found it wrong.
    #[error("step `{step}` is {state}: {reason}")]
    NotReady {
        /// The step.
        step: u64,
        /// Where it or its push session stands, in the API's word.
        state: &'static str,
        /// The server's reason.
        reason: String,
    },
    /// A step's weights can't be pulled in another form than the one that they are stored in.
    #[error("step `{step}` can't be pulled as safetensors: {reason}")]
    NotConvertible {
        /// The step.
        step: u64,
        /// Why, by the file's name.
        reason: String,
    },
    /// What the server sent is not what its digest names.
    #[error("{what} does not have the digest `{digest}`: {reason}")]
    Corrupt {
        /// A chunk, a file, a manifest.
        what: String,
        /// What it should have.
        digest: Digest,
        /// What is there instead.
        reason: String,
    },
}

impl Error {
    /// The server's answer, where there was one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Unauthorized(refusal)
            | Self::Forbidden(refusal)
            | Self::NotFound(refusal)
            | Self::StepExists(refusal)
            | Self::Conflict(refusal)
            | Self::LeaseLost(refusal)
            | Self::Refused(refusal)
            | Self::DigestMismatch(refusal)
            | Self::StoreFull(refusal)
            | Self::Unavailable(refusal)
            | Self::Server(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What the caller can do about it: the server's word, else ours.
    pub fn hint(&self) -> Option<String> {
        if let Some(hint) = self.refusal().and_then(|refusal| refusal.hint.clone()) {
            return Some(hint);
        }
        let hint = match self {
            Self::Unauthorized(_) => "log in with `fineline login`, or set FINELINE_TOKEN",
            Self::Forbidden(_) => "use a token that has the scope; `fineline token create` makes one",
            Self::StepExists(_) => "push with replace (`--replace`) to make a new revision of the step",
            Self::StoreFull(_) => "free room on the registry, then run the same command again: it goes on where it was",
            Self::Connection { .. } => "check that the registry runs and that the URL (FINELINE_URL) is right",
            Self::Data { .. } => {
                "give the data from elsewhere with `--data`: a folder, `s3://BUCKET/PREFIX`, `hf://datasets/OWNER/NAME`"
            }
            Self::Stalled { .. } | Self::Unavailable(_) => "run the same command again: it goes on where it was",
            Self::NotConvertible { .. } => "pull it as it is stored, without `--as`",
            Self::Protocol { .. } => "check that the URL (FINELINE_URL) is that of a Fineline registry",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether the user can mend it (exit code 1), in contrast to a fault of the server or of this program (2).
    pub fn is_users_to_mend(&self) -> bool {
        !matches!(self, Self::Server(_) | Self::Protocol { .. } | Self::Corrupt { .. })
    }

    /// Sorts an answer of the server by what the caller can do about it.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let refusal = Box::new(refusal);
        match refusal.code {
            ErrorCode::Unauthorized => Self::Unauthorized(refusal),
            ErrorCode::Forbidden => Self::Forbidden(refusal),
            ErrorCode::NotFound => Self::NotFound(refusal),
            ErrorCode::StepExists => Self::StepExists(refusal),
            ErrorCode::Conflict => Self::Conflict(refusal),
            ErrorCode::LeaseLost => Self::LeaseLost(refusal),
            ErrorCode::InvalidRequest
            | ErrorCode::Unprocessable
            | ErrorCode::TooLarge
            | ErrorCode::RangeNotSatisfiable => Self::Refused(refusal),
            ErrorCode::DigestMismatch => Self::DigestMismatch(refusal),
            ErrorCode::StoreFull => Self::StoreFull(refusal),
            ErrorCode::Unavailable => Self::Unavailable(refusal),
            ErrorCode::Internal => Self::Server(refusal),
        }
    }

    /// A file that could not be read or written.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Refusal {
    /// Reads the body of an answer; one that is not ours (a proxy's page) is told by its status alone.
    pub(crate) fn read(status: reqwest::StatusCode, url: String, body: &[u8]) -> Self {
        let detail: ErrorDetail = match serde_json::from_slice::<fineline_api::ErrorBody>(body) {
            Ok(body) => body.error,
            Err(_) => ErrorDetail {
                code: code_of(status),
                message: format!("`{url}` answered with status {status}"),
                request_id: String::new(),
                details: None,
            },
        };
        Self {
            status: status.as_u16(),
            code: detail.code,
            message: detail.message,
            hint: detail.details.and_then(|details| details.hint),
            request_id: detail.request_id,
            url,
        }
    }
}

/// The nearest code for a status without a body of ours.
fn code_of(status: reqwest::StatusCode) -> ErrorCode {
    match status.as_u16() {
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        409 => ErrorCode::Conflict,
        413 => ErrorCode::TooLarge,
        416 => ErrorCode::RangeNotSatisfiable,
        429 | 502..=504 => ErrorCode::Unavailable,
        507 => ErrorCode::StoreFull,
        400..=499 => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_ours_gives_code_message_hint_and_request() {
        let body = br#"{"error":{"code":"step_exists","message":"step `7` holds other bytes","request_id":"r1",
            "details":{"hint":"use --replace"}}}"#;
        let refusal = Refusal::read(reqwest::StatusCode::CONFLICT, "http://x/y".to_owned(), body);
        assert_eq!(refusal.request_id, "r1");
        let error = Error::refused(refusal);
        assert!(matches!(error, Error::StepExists(_)), "{error:?}");
        assert_eq!(error.to_string(), "step `7` holds other bytes");
        assert_eq!(error.hint().as_deref(), Some("use --replace"));
        assert!(error.is_users_to_mend());
    }

    #[test]
    fn a_proxys_page_is_told_by_its_status() {
        let refusal = Refusal::read(reqwest::StatusCode::BAD_GATEWAY, "http://x/y".to_owned(), b"<html>");
        assert_eq!(refusal.code, ErrorCode::Unavailable);
        assert!(refusal.message.contains("502") && refusal.message.contains("http://x/y"));
    }
}
