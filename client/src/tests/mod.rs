//! What needs a server: one in memory that can be told to fail (`fake`), and ones that answer by a script.

mod fake;
mod http;
mod push_pull;
