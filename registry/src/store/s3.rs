//! Opening a bucket of S3 or of what speaks its protocol, and telling what went wrong with it.
//!
//! The usual variables of AWS say how: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
//! `AWS_ENDPOINT_URL`, and what roles of machines and containers set. Conditional puts, listing and multipart uploads are
//! not used: a frame is one object of 16 MiB and a little at the most.
//!
//! **Invariant:** no message has a secret, a presigned URL's query, or what a server repeats of a signed request.

use std::sync::Arc;
use std::time::Duration;

use fineline_format::shown_within;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::signer::Url;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::{AwsVariables, StoreOptions};

/// The longest text that is repeated of a server's answer.
const MAX_TOLD_CHARS: usize = 300;

/// Until a connection stands, and until one in which no byte moves is given up. There is no limit on the whole: a frame
/// on a slow line takes what it takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// For how long a request that fails in passing is sent again: shorter than clients wait before they call us stalled.
const RETRY_FOR: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 5;

/// A bucket, and where in it our objects lie.
pub(super) struct Bucket {
    pub(super) objects: Arc<AmazonS3>,
    /// Signs for the name by which clients reach the bucket.
    pub(super) signer: Arc<AmazonS3>,
    pub(super) prefix: Path,
    /// What messages call it.
    pub(super) shown: String,
}

/// Opens `s3://BUCKET[/PREFIX]`; nothing is asked of the server yet.
///
/// # Errors
/// A sentence that names what can't be used.
pub(super) fn open(url: &str, options: &StoreOptions) -> Result<Bucket, String> {
    let (bucket, prefix) = parse(url)?;
    let builder = configure(&options.aws).with_bucket_name(&bucket);
    let endpoint = endpoint(&builder);
    if let Some(endpoint) = &endpoint {
        check_endpoint("AWS_ENDPOINT_URL", endpoint)?;
    }
    let allow_http = endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let builder = builder.with_allow_http(allow_http);
    let built = |builder: AmazonS3Builder| {
        let built = builder.build().map(Arc::new);
        built.map_err(|error| format!("bucket `{bucket}` can't be used: {}", describe(&error)))
    };
    let objects = built(builder.clone())?;
    let signer = match &options.public_url {
        None => Arc::clone(&objects),
        Some(public) => {
            check_endpoint("--store-public-url", public)?;
            let public = public.trim_end_matches('/');
            // Whichever of the two the environment names, this one counts.
            let key = AmazonS3ConfigKey::S3Endpoint;
            built(builder.with_config(key, public).with_allow_http(true))?
        }
    };
    let at = endpoint.map_or_else(String::new, |endpoint| format!(" at `{endpoint}`"));
    Ok(Bucket {
        objects,
        signer,
        prefix,
        shown: format!("bucket `{bucket}`{at}"),
    })
}

fn parse(url: &str) -> Result<(String, Path), String> {
    let rest = url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if bucket.is_empty() || !bucket.chars().all(plain) {
        // Not repeated: who writes a secret into a URL writes it here.
        return Err("the store's URL names no bucket: write it as `s3://BUCKET/PREFIX`".to_owned());
    }
    let path = Path::parse(prefix.trim_end_matches('/'));
    let path = path.map_err(|_| format!("`{prefix}` can't be the beginning of a key in bucket `{bucket}`"))?;
    Ok((bucket.to_owned(), path))
}

fn configure(variables: &AwsVariables) -> AmazonS3Builder {
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(STALL_TIMEOUT);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_FOR,
    };
    // Not every server has the call that deletes many, and one at a time is what a plain DELETE is for.
    let builder = AmazonS3Builder::new()
        .with_client_options(options)
        .with_retry(retry)
        .with_disable_bulk_delete(true);
    variables.0.iter().fold(builder, |builder, (name, value)| {
        match name.to_ascii_lowercase().parse() {
            Ok(key) => builder.with_config(key, value),
            // A variable of AWS that says nothing to us.
            Err(_) => builder,
        }
    })
}

fn endpoint(builder: &AmazonS3Builder) -> Option<String> {
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned())
}

fn check_endpoint(what: &str, endpoint: &str) -> Result<(), String> {
    let usable = Url::parse(endpoint).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    });
    if usable {
        return Ok(());
    }
    Err(format!(
        "{what} can't be used: write it as `https://HOST[:PORT]`, without user, password or query"
    ))
}

/// What a store's error says to people: the server's code and sentence where it sent them, and no query of a URL.
pub(super) fn describe(error: &object_store::Error) -> String {
    let text = error.to_string();
    let told = match (element(&text, "Code"), element(&text, "Message")) {
        (Some(code), _) if is_refused(error) => format!("the credentials are refused ({code})"),
        _ if is_refused(error) => "the credentials are refused".to_owned(),
        (Some(code), Some(message)) => format!("{code}: {}", without_queries(message)),
        _ => without_queries(&text),
    };
    shown_within(MAX_TOLD_CHARS, &told)
}

fn is_refused(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

/// Whether what is missing is the whole bucket, which says nothing about an object.
pub(super) fn is_bucket_missing(error: &object_store::Error) -> bool {
    element(&error.to_string(), "Code") == Some("NoSuchBucket")
}

/// The text of an element of an error's XML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

fn without_queries(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((before, _)) if before.contains("://") => before,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_with(url: &str, variables: &[(&str, &str)], public_url: Option<&str>) -> Result<Bucket, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = StoreOptions {
            aws: AwsVariables::new(variables),
            direct_off: false,
            public_url: public_url.map(str::to_owned),
        };
        assert!(!format!("{:?}", options.aws).contains("hush"));
        open(url, &options)
    }

    const VARIABLES: [(&str, &str); 4] = [
        ("AWS_ACCESS_KEY_ID", "GK1"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_REGION", "garage"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:3900/"),
    ];

    #[test]
    fn a_bucket_is_named_with_its_endpoint_and_prefix() {
        let bucket = open_with("s3://ckpt/lab/a/", &VARIABLES, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(bucket.shown, "bucket `ckpt` at `http://127.0.0.1:3900`");
        assert_eq!(bucket.prefix.as_ref(), "lab/a");
        let plain = open_with("s3://ckpt", &VARIABLES[..3], None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((plain.shown.as_str(), plain.prefix.as_ref()), ("bucket `ckpt`", ""));
    }

    #[tokio::test]
    async fn urls_are_signed_for_the_name_that_clients_know() {
        use object_store::signer::{Method, Signer};
        let public = Some("https://objects.lab/");
        let bucket = open_with("s3://ckpt", &VARIABLES, public).unwrap_or_else(|error| panic!("{error}"));
        let path = Path::from("frames/00/x");
        let signed = bucket.signer.signed_url(Method::GET, &path, Duration::from_secs(60));
        let url = signed.await.unwrap();
        assert_eq!(
            (url.scheme(), url.host_str(), url.path()),
            ("https", Some("objects.lab"), "/ckpt/frames/00/x")
        );
        assert!(url.query().is_some_and(|query| !query.contains("hush")));
    }

    #[test]
    fn what_can_not_be_used_is_refused_without_its_secrets() {
        let mut bad = VARIABLES;
        bad[3] = ("AWS_ENDPOINT_URL", "http://me:hush@host");
        let cases = [
            open_with("s3://", &VARIABLES, None),
            open_with("s3://key:hush@bucket", &VARIABLES, None),
            open_with("s3://bucket/a//b", &VARIABLES, None),
            open_with("s3://bucket", &bad, None),
            open_with("s3://bucket", &VARIABLES, Some("objects.lab?hush")),
            open_with("s3://bucket", &VARIABLES[..1], None),
        ];
        for case in cases {
            let error = case.err().unwrap();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn an_error_tells_the_servers_sentence_and_nothing_that_was_signed() {
        let body = "<Error><Code>SlowDown</Code><Message>come to http://x/y?sig=hush later</Message>\
            <StringToSign>hush</StringToSign></Error>";
        let generic = |text: &str| object_store::Error::Generic {
            store: "S3",
            source: text.into(),
        };
        assert_eq!(describe(&generic(body)), "SlowDown: come to http://x/y later");
        assert!(!describe(&generic("GET http://x/y?X-Amz-Signature=hush failed")).contains("hush"));
        let refused = object_store::Error::PermissionDenied {
            path: "a".to_owned(),
            source: "<Code>AccessDenied</Code><Message>no such key: GK1</Message>".into(),
        };
        assert_eq!(describe(&refused), "the credentials are refused (AccessDenied)");
    }
}
