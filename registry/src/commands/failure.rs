//! How a command's error is told and which exit status it gives.

use std::io::ErrorKind;
use std::process::ExitCode;

use super::say;
use crate::error::ApiError;

/// An error that whoever runs the command can mend.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UserError {
    message: String,
    hint: String,
}

impl UserError {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Prints the chain of an error, a blank line and the hint; gives 1 when the user can mend it, else 2.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    say(&text(error));
    ExitCode::from(if is_users_to_mend(error) { 1 } else { 2 })
}

fn text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("\n  because: {cause}"));
    }
    if let Some(hint) = error.chain().find_map(hint) {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text
}

fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<UserError>() {
        return Some(error.hint.clone());
    }
    if let Some(error) = cause.downcast_ref::<ApiError>() {
        return error.hint_text().map(str::to_owned);
    }
    let hint = match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::AddrInUse => "choose another address with --listen; port 0 takes a free one",
        ErrorKind::PermissionDenied => "run as the owner of the folder, or give another with --data",
        ErrorKind::StorageFull => "free some space, or give a folder on another disk with --data",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn is_users_to_mend(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let api = cause.downcast_ref::<ApiError>().map(ApiError::status);
        // What a system call refuses is a matter of paths, rights, addresses and space.
        cause.is::<UserError>() || cause.is::<std::io::Error>() || api.is_some_and(|status| status.is_client_error())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_a_blank_line_and_the_hint() {
        let cause = UserError::new("store `ftp` is not supported", "use `file:///DIR`");
        let error = anyhow::Error::new(cause).context("can't start");
        let expected = "error: can't start\n  because: store `ftp` is not supported\n\nhint: use `file:///DIR`";
        assert_eq!(text(&error), expected);
        assert!(is_users_to_mend(&error));
    }

    #[test]
    fn only_what_nobody_can_mend_is_unexpected() {
        let taken = std::io::Error::from(ErrorKind::AddrInUse);
        assert!(is_users_to_mend(&anyhow::Error::new(taken).context("can't listen")));
        assert!(is_users_to_mend(&ApiError::not_found("token `x`").into()));
        assert!(!is_users_to_mend(&ApiError::internal("broken").into()));
        assert!(!is_users_to_mend(&anyhow::anyhow!("who knows")));
    }
}
