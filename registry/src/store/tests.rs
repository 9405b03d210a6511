use super::*;

#[path = "../../../tests/harness/garage.rs"]
#[expect(unreachable_pub, reason = "the integration tests share it")]
mod garage;

impl Store {
    pub(crate) fn in_memory() -> Self {
        Self::open("memory:", &StoreOptions::default()).unwrap()
    }

    /// A store of another making.
    pub(crate) fn over(objects: impl ObjectStore) -> Self {
        Self {
            objects: Arc::new(objects),
            ..Self::in_memory()
        }
    }

    /// The same store as one whose objects have URLs, which nobody serves.
    pub(crate) fn with_urls(self) -> Self {
        #[derive(Debug)]
        struct Unserved;
        #[async_trait::async_trait]
        impl Signer for Unserved {
            async fn signed_url(
                &self,
                method: Method,
                path: &Path,
                expires_in: Duration,
            ) -> object_store::Result<object_store::signer::Url> {
                let url = format!("https://bucket.test/{path}?{method}={}", expires_in.as_secs());
                Ok(url.parse().unwrap())
            }
        }
        Self {
            signer: Some(Arc::new(Unserved)),
            ..self
        }
    }

    /// How many objects there are, whatever the database says.
    pub(crate) async fn count_objects(&self) -> usize {
        use futures::StreamExt;
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        self.objects.list(prefix).count().await
    }

    /// What a client does at a staging URL.
    pub(crate) async fn put_staged(&self, id: Uuid, bytes: Bytes) {
        let key = self.key(&key::staging(id));
        self.objects.put(&key, bytes.into()).await.unwrap();
    }
}

/// What every store must do, whatever lies behind it.
async fn store_suite(store: &Store) {
    store.try_out().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(store.count_objects().await, 0, "a probe leaves nothing behind");
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    assert!(matches!(store.get_frame(id).await, Err(StoreError::Missing(_))));
    assert_eq!(store.frame_size(id).await.unwrap(), None);
    for _ in 0..2 {
        store.put_frame(id, Bytes::from_static(b"frame")).await.unwrap();
    }
    store.put_frame(other, Bytes::new()).await.unwrap();
    assert_eq!(store.get_frame(id).await.unwrap(), "frame");
    assert_eq!(store.get_frame(other).await.unwrap(), "");
    assert_eq!(store.frame_size(id).await.unwrap(), Some(5));
    assert_eq!(store.frame_size(other).await.unwrap(), Some(0));
    for _ in 0..2 {
        store.delete_frame(id).await.unwrap();
    }
    assert!(matches!(store.get_frame(id).await, Err(StoreError::Missing(_))));
    assert_eq!(store.frame_size(other).await.unwrap(), Some(0), "its neighbour stays");
    largest_frame(store).await;
    staging(store).await;
    store.delete_frame(other).await.unwrap();
    assert_eq!(store.count_objects().await, 0);
}

async fn largest_frame(store: &Store) {
    let (id, bytes) = (Uuid::now_v7(), vec![7; fineline_format::MAX_FRAME_BYTES]);
    store.put_frame(id, bytes.clone().into()).await.unwrap();
    assert!(store.get_frame(id).await.unwrap() == bytes);
    store.delete_frame(id).await.unwrap();
}

/// What is staged is read as it is at that moment, and never further than allowed.
async fn staging(store: &Store) {
    let id = Uuid::now_v7();
    assert!(matches!(store.get_staged(id, 9).await.unwrap(), Staged::Nothing));
    store.put_staged(id, Bytes::from_static(b"one")).await;
    store.put_staged(id, Bytes::from_static(b"second")).await;
    assert!(matches!(store.get_staged(id, 6).await.unwrap(), Staged::Frame(bytes) if bytes == "second"));
    assert!(matches!(store.get_staged(id, 5).await.unwrap(), Staged::TooLong(6)));
    for _ in 0..2 {
        store.delete_staged(id).await.unwrap();
    }
    assert!(matches!(store.get_staged(id, 9).await.unwrap(), Staged::Nothing));
}

fn options(variables: Vec<(String, String)>) -> StoreOptions {
    StoreOptions {
        aws: AwsVariables::new(variables),
        ..StoreOptions::default()
    }
}

fn open(url: &str) -> Result<Store, String> {
    Store::open(url, &StoreOptions::default())
}

#[tokio::test]
async fn memory_and_folder_behave_alike() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().join("store").display());
    store_suite(&Store::in_memory()).await;
    store_suite(&open(&url).unwrap()).await;
}

#[tokio::test]
async fn a_bucket_behaves_like_them() {
    let Some(garage) = garage::garage("store_suite on garage") else {
        return;
    };
    let options = options(garage.variables());
    // Twice: what lies under another prefix is another store's.
    for prefix in ["suite/a", "suite/b"] {
        let store = Store::open(&garage.store(prefix), &options).unwrap();
        store_suite(&store).await;
        store
            .put_frame(Uuid::now_v7(), Bytes::from_static(b"stays"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_bucket_that_can_not_be_used_is_named_with_what_is_wrong_and_without_secrets() {
    let Some(garage) = garage::garage("store_suite on garage") else {
        return;
    };
    let variables = garage.variables();
    let with = |name: &str, value: &str| {
        let mut changed = variables.clone();
        changed.retain(|(kept, _)| kept != name);
        changed.push((name.to_owned(), value.to_owned()));
        options(changed)
    };
    let url = garage.store("x");
    let refused = with("AWS_SECRET_ACCESS_KEY", "hush");
    let gone = with("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let cases = [
        (Store::open(&url, &refused).unwrap(), "credentials are refused"),
        (Store::open(&url, &gone).unwrap(), "127.0.0.1:1"),
        (
            Store::open("s3://absent/x", &options(variables.clone())).unwrap(),
            "NoSuchBucket",
        ),
    ];
    for (store, told) in cases {
        let error = store.try_out().await.unwrap_err();
        assert!(error.starts_with("bucket `") && error.contains(told), "{error}");
        assert!(!error.contains("hush") && !error.contains('?'), "{error}");
        // And no object of it is said to be missing, which would be damage.
        assert!(matches!(store.check().await, Err(StoreError::Other(_))), "{told}");
        let read = store.get_frame(Uuid::now_v7()).await;
        assert!(matches!(read, Err(StoreError::Other(_))), "{told}");
    }
}

#[tokio::test]
async fn deleting_takes_away_what_a_cut_put_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&format!("file://{}", dir.path().display())).unwrap();
    let id = Uuid::now_v7();
    store.put_frame(id, Bytes::from_static(b"frame")).await.unwrap();
    let object = dir.path().join(key::frame(id).as_ref());
    for n in 1..3 {
        std::fs::write(format!("{}#{n}", object.display()), "half").unwrap();
    }
    store.delete_frame(id).await.unwrap();
    assert_eq!(std::fs::read_dir(object.parent().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_keeps_frames_between_starts_and_refuses_what_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (url, id) = (format!("file://{}", dir.path().display()), Uuid::now_v7());
    let put = open(&url).unwrap().put_frame(id, Bytes::from_static(b"x")).await;
    put.unwrap();
    assert_eq!(open(&url).unwrap().get_frame(id).await.unwrap(), "x");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&format!("file://{}/inside", file.display())).unwrap_err();
    assert!(error.contains("file/inside"), "{error}");
    assert!(open("ftp://host").unwrap_err().contains("`ftp://host`"));
}
