//! The checked-in OpenAPI document is the router's.

use std::path::Path;

#[test]
fn the_checked_in_document_is_the_routers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut document = fineline_registry::openapi().to_pretty_json().unwrap();
    document.push('\n');
    if std::env::var_os("FINELINE_UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == document,
        "docs/openapi.json is not the router's: run `FINELINE_UPDATE_OPENAPI=1 cargo test -p fineline-tests openapi`"
    );
}
