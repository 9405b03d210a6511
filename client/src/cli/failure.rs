//! How an error is told and which exit code it gives.

use std::io;
use std::process::ExitCode;

use super::printer::Printer;

/// An error that the user can mend, made here and not by the registry.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UserError {
    pub(crate) message: String,
    pub(crate) hint: String,
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
pub(crate) fn report(printer: Printer, error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    printer.error(&text(error));
    ExitCode::from(if is_users_to_mend(error) { 1 } else { 2 })
}

fn text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat their cause in their own words.
        if !last.contains(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
        last = cause;
    }
    if let Some(hint) = hint(error) {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<UserError>().map(|error| error.hint.clone());
        own.or_else(|| cause.downcast_ref::<fineline_client::Error>()?.hint())
    })
}

fn is_users_to_mend(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<fineline_client::Error>() {
            return error.is_users_to_mend();
        }
        let file = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        cause.is::<UserError>() || matches!(file, Some(io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied))
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_a_blank_line_and_the_hint() {
        let cause = UserError::new("no token", "log in");
        let error = anyhow::Error::new(cause).context("can't push step `7`");
        assert_eq!(
            text(&error),
            "error: can't push step `7`\n  because: no token\n\nhint: log in"
        );
        assert!(is_users_to_mend(&error));
        assert!(!is_users_to_mend(&anyhow::anyhow!("who knows")));
        assert!(is_users_to_mend(
            &anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound)).context("can't read")
        ));
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert!(is_closed_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
    }
}
