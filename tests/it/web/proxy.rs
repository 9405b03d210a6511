//! Behind a proxy: what is believed of it, and a server that is not at the root of its host.

use harness::serve_with;
use reqwest::StatusCode;

use super::browser::Browser;

const X: [(&str, &str); 2] = [("x-forwarded-proto", "https"), ("x-forwarded-host", "reg.lab")];
const FORWARDED: [(&str, &str); 1] = [("forwarded", "for=198.51.100.9;proto=https;host=reg.lab")];

fn through(url: &str, headers: &[(&'static str, &str)]) -> Browser {
    let mut browser = Browser::new(url);
    browser.headers = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    browser
}

#[tokio::test]
async fn forwarded_headers_make_the_cookie_secure_from_a_named_proxy_alone() {
    let named = serve_with(|options| options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let other = serve_with(|options| options.trusted_proxies = vec!["10.0.0.7".parse().unwrap()]).await;
    for headers in [&X[..], &FORWARDED[..]] {
        let mut browser = through(&named.server.url, headers);
        let entered = browser.log_in(&named.server.admin_token, "/").await;
        assert!(
            entered.set_cookie().starts_with("__Host-fineline="),
            "{}",
            entered.set_cookie()
        );
        assert!(entered.set_cookie().contains("; Secure"), "{}", entered.set_cookie());
        assert!(browser.get("/").await.body.contains("--url https://reg.lab\n"));

        let mut browser = through(&other.server.url, headers);
        let entered = browser.log_in(&other.server.admin_token, "/").await;
        assert!(
            entered.set_cookie().starts_with("fineline="),
            "{}",
            entered.set_cookie()
        );
        assert!(!entered.set_cookie().contains("Secure"), "{}", entered.set_cookie());
        let own = format!("--url {}\n", other.server.url);
        assert!(browser.get("/").await.body.contains(&own));
    }
}

#[tokio::test]
async fn a_form_comes_from_where_the_browser_was() {
    let server = serve_with(|options| options.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    for (origin, status) in [
        ("https://reg.lab", StatusCode::SEE_OTHER),
        ("http://reg.lab", StatusCode::FORBIDDEN),
        ("https://reg.lab.evil", StatusCode::FORBIDDEN),
    ] {
        let mut browser = through(&server.server.url, &X);
        browser.headers.push(("origin", origin.to_owned()));
        let entered = browser.log_in(&server.server.admin_token, "/").await;
        assert_eq!(entered.status, status, "{origin}: {}", entered.body);
    }
}

#[tokio::test]
async fn a_public_url_with_a_path_is_before_every_link() {
    let public = "https://lab.org/tools/fineline/";
    let server = serve_with(|options| options.public_url = Some(public.parse().unwrap())).await;
    server.run("lab/a").await;
    let mut browser = Browser::new(&server.server.url);
    browser.headers.push(("origin", "https://lab.org".to_owned()));

    let asked = browser.get("/runs/lab/a").await;
    assert_eq!(asked.location(), "/tools/fineline/login?next=%2Fruns%2Flab%2Fa");
    let entered = browser.log_in(&server.server.admin_token, "/runs/lab/a").await;
    assert_eq!(entered.location(), "/tools/fineline/runs/lab/a", "{}", entered.body);
    assert!(
        entered.set_cookie().starts_with("__Host-fineline="),
        "{}",
        entered.set_cookie()
    );
    assert!(entered.set_cookie().contains("Path=/; HttpOnly; SameSite=Lax; Secure"));
    for path in ["/", "/login", "/runs/lab/a", "/runs/lab/b", "/evaluations", "/docs"] {
        let page = browser.get(path).await;
        let links = [page.attributes("href"), page.attributes("action")].concat();
        assert!(links.len() > 2, "{path}: {links:?}");
        for link in links {
            let is_within_the_page = link.starts_with('#');
            assert!(
                is_within_the_page || link.starts_with("/tools/fineline/"),
                "{path}: {link}"
            );
        }
    }
}
