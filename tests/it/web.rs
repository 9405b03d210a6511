//! The pages, as a browser sees them.

mod browser;
mod csrf;
mod log;
mod login;
mod proxy;

pub(crate) use browser::Browser;
