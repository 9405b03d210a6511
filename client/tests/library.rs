//! Tasks of the library with data from folders and from a Hub: what is looked for, what is refused, and that the digest of a
//! suite is that of what is measured and not of where it lay.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says why it skips")]

mod hub;

use std::path::Path;

use fineline_client::{DataSource, Error, HubOptions, LoadedSuite, SuiteOptions};
use fineline_format::Digest;

use hub::{COMMIT, Hub, lines, parquet};

fn options(data: &str, hub: &Hub) -> SuiteOptions {
    SuiteOptions {
        data: Some(data.parse().unwrap()),
        limit: None,
        num_fewshot: None,
        hub: HubOptions {
            endpoint: hub.url.clone(),
            token: Some("hf_secret".to_owned()),
        },
    }
}

fn write(dir: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn digest(name: &str, data: &str, hub: &Hub) -> Digest {
    let suite = LoadedSuite::load(Path::new(name), &options(data, hub)).await.unwrap();
    suite.definition().digest()
}

async fn error(name: impl AsRef<Path>, options: &SuiteOptions) -> String {
    LoadedSuite::load(name.as_ref(), options).await.unwrap_err().to_string()
}

#[tokio::test]
async fn the_same_documents_are_the_same_suite_wherever_they_lay() {
    // Given the same documents in a Hub, in two shards, in one file of Parquet and as JSON lines
    let hub = Hub::serve().await;
    hub.put("allenai/sciq/default/test/0000.parquet", parquet(0..3));
    hub.put("allenai/sciq/default/test/0001.parquet", parquet(3..5));
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "mirror/sciq/default/test/0000.parquet", parquet(0..5));
    write(dir.path(), "parquet/sciq/test.parquet", parquet(0..5));
    write(dir.path(), "lines/sciq/test.jsonl", lines(0..5));
    write(
        dir.path(),
        "other/sciq/test.jsonl",
        lines(0..5).replace("question 4", "question 5"),
    );
    let folder = |name: &str| dir.path().join(name).display().to_string();
    // Then the suite is one
    let expected = digest("sciq", "hf", &hub).await;
    assert_eq!(digest("sciq", "hf://datasets/allenai/sciq", &hub).await, expected);
    for name in ["mirror", "parquet", "lines"] {
        assert_eq!(digest("sciq", &folder(name), &hub).await, expected, "{name}");
    }
    // And with one other byte, one limit or one shot more it is another
    assert_ne!(digest("sciq", &folder("other"), &hub).await, expected);
    let limited = SuiteOptions {
        limit: Some(3),
        ..options(&folder("lines"), &hub)
    };
    let limited = LoadedSuite::load(Path::new("sciq"), &limited).await.unwrap();
    assert_ne!(limited.definition().digest(), expected);
    let shots = SuiteOptions {
        num_fewshot: Some(1),
        ..options(&folder("lines"), &hub)
    };
    let missing = error("sciq", &shots).await;
    assert!(
        missing.contains("split `train`") && missing.contains("`sciq/test.jsonl` is another split"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_branch_becomes_a_commit_before_anything_of_it_is_read() {
    let hub = Hub::serve().await;
    hub.put("allenai/sciq/default/test/0000.parquet", parquet(0..3));
    hub.put("allenai/sciq/default/train/0000.parquet", parquet(0..3));
    hub.fail_next(1);
    let suite = LoadedSuite::load(Path::new("sciq"), &options("hf", &hub))
        .await
        .unwrap();
    let origin = &suite.origins()[0];
    assert_eq!(
        (origin.source.as_str(), origin.revision.as_deref()),
        ("hf://datasets/allenai/sciq", Some(COMMIT))
    );
    assert_eq!(origin.files, ["default/test/0000.parquet"]);
    let asked = hub.asked();
    let expected = [
        // Answered with 503 once.
        "/api/datasets/allenai/sciq/revision/refs%2Fconvert%2Fparquet".to_owned(),
        "/api/datasets/allenai/sciq/revision/refs%2Fconvert%2Fparquet".to_owned(),
        format!("/api/datasets/allenai/sciq/tree/{COMMIT}?recursive=true"),
        format!("/api/datasets/allenai/sciq/tree/{COMMIT}?recursive=true&cursor=1"),
        format!("/datasets/allenai/sciq/resolve/{COMMIT}/default/test/0000.parquet"),
    ];
    assert_eq!(
        asked.iter().map(|(url, _)| url).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert!(
        asked
            .iter()
            .all(|(_, token)| token.as_deref() == Some("Bearer hf_secret"))
    );
    // The bytes come from elsewhere, where the token has no business.
    assert_eq!(
        hub.elsewhere(),
        [("/files/allenai/sciq/default/test/0000.parquet".to_owned(), None)]
    );
    assert!(!format!("{:?}", options("hf", &hub)).contains("hf_secret"));
}

#[tokio::test]
async fn a_hub_that_says_no_is_told_with_its_url() {
    let hub = Hub::serve().await;
    hub.put("cais/mmlu/anatomy/test/0000.parquet", parquet(0..2));
    for (data, name, expected) in [
        ("hf://datasets/private/set", "sciq", "HF_TOKEN"),
        ("hf", "hellaswag", "there is no such data set"),
        ("hf://datasets/cais/mmlu@none", "sciq", "there is no such data set"),
        ("hf", "mmlu_virology", "`virology/test/*.parquet`"),
        ("hf://datasets/endless/set", "sciq", "longer than"),
        ("hf", "perplexity", "`--data FILE`"),
    ] {
        let failed = LoadedSuite::load(Path::new(name), &options(data, &hub))
            .await
            .unwrap_err();
        let text = failed.to_string();
        assert!(
            text.contains(expected) && failed.is_users_to_mend() && !text.contains("hf_secret"),
            "{data}: {text}"
        );
        if let Error::Data { url, .. } = &failed {
            assert!(url.starts_with(&hub.url) && !url.contains('?'), "{url}");
        }
    }
    let nowhere = SuiteOptions {
        hub: HubOptions {
            endpoint: "http://127.0.0.1:1".to_owned(),
            token: None,
        },
        ..options("hf", &hub)
    };
    let text = error("sciq", &nowhere).await;
    assert!(text.contains("http://127.0.0.1:1/api/datasets/allenai/sciq"), "{text}");
}

#[tokio::test]
async fn a_suite_file_names_tasks_of_the_library_beside_its_own() {
    let hub = Hub::serve().await;
    let dir = tempfile::tempdir().unwrap();
    let own = "task: own\ndataset_path: json\ndataset_kwargs: {data_files: {test: own.jsonl}}\ntest_split: test\n\
        output_type: loglikelihood\ndoc_to_text: \"{{a}}\"\ndoc_to_target: \"{{b}}\"\n";
    write(dir.path(), "tasks/own.yaml", own);
    write(dir.path(), "tasks/own.jsonl", "{\"a\":\"x\",\"b\":\"y\"}\n");
    write(dir.path(), "sets/sciq/test.jsonl", lines(0..2));
    write(dir.path(), "elsewhere/sciq/test.jsonl", lines(0..4));
    write(dir.path(), "sets/mmlu/test.jsonl", mmlu("test"));
    write(
        dir.path(),
        "suite.yaml",
        "suite: s\ntasks: [mmlu_anatomy, tasks/own.yaml, sciq]\ndata: sets\nlimit: 7\n",
    );
    let suite = dir.path().join("suite.yaml");
    let as_said = SuiteOptions {
        data: None,
        ..options("hf", &hub)
    };
    let loaded = LoadedSuite::load(&suite, &as_said).await.unwrap();
    let definition = loaded.definition();
    let names: Vec<_> = definition.tasks.iter().map(|task| task.task.as_str()).collect();
    assert_eq!(
        (names, definition.limit),
        (vec!["mmlu_anatomy", "own", "sciq"], Some(7))
    );
    let text = |task: usize, split: &str| {
        let blob = &definition.tasks[task].data[split][0];
        String::from_utf8(loaded.blob(blob.digest).unwrap().to_vec()).unwrap()
    };
    // Of a file of all subjects the lines of one, as they are.
    assert_eq!(
        text(0, "test"),
        "{\"subject\": \"anatomy\", \"question\": \"q test anatomy\"}\n"
    );
    assert_eq!(text(2, "test"), lines(0..2));
    // What the command line says is over it.
    let elsewhere = dir.path().join("elsewhere").display().to_string();
    let missing = error(&suite, &options(&elsewhere, &hub)).await;
    assert!(
        missing.contains("`mmlu_anatomy`") && missing.contains("`mmlu/test.jsonl`"),
        "{missing}"
    );
    for (tasks, expected) in [
        ("[sciq, sciqq]", "`sciqq`"),
        ("[sciq, sciq]", "twice"),
        ("[mmlu, mmlu_stem]", "no documents"),
    ] {
        write(
            dir.path(),
            "suite.yaml",
            format!("suite: s\ntasks: {tasks}\ndata: sets\n"),
        );
        let text = error(&suite, &as_said).await;
        assert!(text.contains(expected), "{text}");
    }
}

/// Documents of two subjects in one file.
fn mmlu(split: &str) -> String {
    let document = |subject: &str| format!("{{\"subject\": \"{subject}\", \"question\": \"q {split} {subject}\"}}\n");
    document("anatomy") + &document("virology")
}

#[tokio::test]
async fn any_text_is_a_task() {
    let hub = Hub::serve().await;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "book.txt", "One line.\nAnd another.\n");
    write(
        dir.path(),
        "sets/perplexity/test.jsonl",
        "{\"text\":\"One line.\\nAnd another.\\n\"}\n",
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    let file = digest("perplexity", &at("book.txt"), &hub).await;
    assert_eq!(digest("perplexity", &at("sets"), &hub).await, file);
    let text = error("sciq", &options(&at("book.txt"), &hub)).await;
    assert!(
        text.contains("book.txt") && text.contains("only `perplexity`"),
        "{text}"
    );
    let text = error("sciq", &options(&at("nowhere"), &hub)).await;
    assert!(text.contains("nowhere"), "{text}");
    assert!("gopher://x".parse::<DataSource>().is_err());
}

#[tokio::test]
async fn real_sets_are_taken_as_they_lie() {
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eval");
    if !sets.is_dir() {
        println!("skipped: client/library: there is no ../shared/data beside the clone");
        return;
    }
    let hub = Hub::serve().await;
    let with = |num_fewshot: Option<u32>| SuiteOptions {
        num_fewshot,
        ..options(sets.to_str().unwrap(), &hub)
    };
    let usable = [
        ("hellaswag", None),
        ("piqa", None),
        ("winogrande", None),
        ("boolq", None),
        ("copa", None),
        ("social_iqa", None),
        ("commonsense_qa", None),
        ("lambada", None),
        ("gsm8k", Some(0)),
        ("mmlu", Some(5)),
    ];
    for (name, num_fewshot) in usable {
        let suite = LoadedSuite::load(Path::new(name), &with(num_fewshot)).await.unwrap();
        assert!(suite.definition().check().is_ok(), "{name}");
    }
    // Of these there is another split, or none: it is said, and nothing is scored.
    for (name, expected) in [
        ("arc_easy", "`arc_easy/validation.jsonl` is another split"),
        ("openbookqa", "`openbookqa/validation.jsonl` is another split"),
        ("sciq", "`sciq/validation.jsonl` is another split"),
        ("gsm8k", "split `train`"),
        ("truthfulqa_mc1", "`truthfulqa/validation.jsonl`"),
        ("wikitext", "`wikitext/test.jsonl`"),
    ] {
        let text = error(name, &with(None)).await;
        assert!(text.contains(expected), "{text}");
    }
}
