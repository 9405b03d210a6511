//! Everything with HTTP, driven through the client library against a real server on a free port.

mod coverage;
mod evaluation;
mod openapi;
mod possession;
mod push;
