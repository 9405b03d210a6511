//! The database of a test: SQLite in the test's folder, or, where `FINELINE_TEST_POSTGRES` names a server
//! (`postgres://USER@HOST/{database}`, to the letter), one of the test's own there.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fineline_format::Digest;

/// The pattern of the URLs of a server's databases.
const SERVER: &str = "FINELINE_TEST_POSTGRES";

/// The URL of the PostgreSQL database that belongs to a data folder, made when it is not there; `None` for SQLite.
///
/// # Panics
/// When `psql` or the server fails.
pub fn postgres_of(data: &Path) -> Option<String> {
    let pattern = std::env::var(SERVER).ok()?;
    let url = |database: &str| pattern.replace("{database}", database);
    let folder = data.canonicalize().expect("the data folder is there");
    let name = format!(
        "t_{}",
        &Digest::of(folder.as_os_str().as_encoded_bytes()).to_hex()[..24]
    );
    let mut psql = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", &url("postgres")])
        .stdin(Stdio::piped())
        .spawn()
        .expect("psql starts");
    let create = format!(
        "SELECT 'CREATE DATABASE {name}' WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = '{name}') \\gexec\n"
    );
    let input = psql.stdin.take().map(|mut input| input.write_all(create.as_bytes()));
    input.expect("it is piped").expect("psql reads");
    assert!(
        psql.wait().expect("psql ends").success(),
        "database `{name}` can't be made"
    );
    Some(url(&name))
}
