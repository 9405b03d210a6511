//! The pages, as a browser sees them.

mod browser;
mod checkpoint;
mod csrf;
mod docs;
mod evaluation;
mod log;
mod login;
mod proxy;
mod run;

pub(crate) use browser::Browser;
