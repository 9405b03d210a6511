//! The API's documentation for people.

use harness::serve;
use reqwest::StatusCode;

use super::browser::Browser;

#[tokio::test]
async fn every_operation_and_schema_of_the_document_is_on_the_page_and_every_link_leads_somewhere() {
    let server = serve().await;
    let document = serde_json::to_value(fineline_registry::openapi()).unwrap();
    let page = Browser::new(&server.server.url).get("/docs").await;
    assert_eq!(
        page.status,
        StatusCode::OK,
        "everybody may read it, as the document itself"
    );

    let ids = page.attributes("id");
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|methods| methods.as_object().unwrap().values());
    let operations = operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned());
    let schemas = document["components"]["schemas"].as_object().unwrap().keys();
    let named: Vec<String> = operations.chain(schemas.map(|name| format!("schema-{name}"))).collect();
    assert!(named.len() > 80, "{named:?}");
    for id in named {
        assert_eq!(ids.iter().filter(|found| **found == id).count(), 1, "{id}");
    }
    for link in page.attributes("href").iter().filter_map(|link| link.strip_prefix('#')) {
        assert!(ids.iter().any(|id| id == link), "#{link} leads nowhere");
    }
}
