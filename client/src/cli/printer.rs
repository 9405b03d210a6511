//! The only door to stdout and stderr.
//!
//! **Invariant:** stdout carries data alone, with `--json` one document; a closed pipe is an error value, no panic.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
}

impl Printer {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether bars may move: someone watches stderr and wants to.
    pub(crate) fn shows_bars(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Prints data: as JSON, or as `human` makes text of it.
    pub(crate) fn data<T: Serialize + ?Sized>(self, data: &T, human: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string_pretty(data)?
        } else {
            human(data)
        };
        self.raw(text.trim_end_matches('\n').as_bytes())?;
        self.raw(b"\n")
    }

    /// Prints one item of an endless list: as JSON on a line of its own, or as text.
    pub(crate) fn item<T: Serialize>(self, item: &T, human: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(item)?
        } else {
            human(item)
        };
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Prints bytes that are data already.
    pub(crate) fn raw(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(())
    }

    /// Says something to whoever watches.
    pub(crate) fn word(self, text: &str) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// Asks whoever watches; where nobody does, the answer is yes.
    pub(crate) fn agrees(self, question: &str) -> anyhow::Result<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(true);
        }
        write!(io::stderr().lock(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Says something that must not be missed.
    pub(crate) fn error(self, text: &str) {
        // When stderr is closed there is nobody to tell.
        writeln!(io::stderr().lock(), "{text}").ok();
    }
}
