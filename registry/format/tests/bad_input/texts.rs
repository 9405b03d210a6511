//! Manifests, paths, indexes, digests, tasks and suites.

use fineline_format::manifest::MAX_FILES;
use fineline_format::suite::{SuiteDefinition, SuiteFile};
use fineline_format::task::TaskFile;
use fineline_format::weights::weight_files;
use fineline_format::{Digest, FileEntry, Manifest, check_path};

use crate::table::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [manifests(), paths(), indexes(), tasks(), suites()]
        .into_iter()
        .flatten()
        .collect()
}

fn entry(path: &str, size_bytes: u64) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        size_bytes,
        digest: Digest::of(b""),
    }
}

fn manifests() -> Vec<Case> {
    let json = |name, expected, json: String| {
        case("manifest", name, expected, move || {
            Manifest::from_json(json.as_bytes())
                .map(drop)
                .map_err(|error| error.to_string())
        })
    };
    let file = |path: &str, size: &str| {
        let hex = Digest::of(b"").to_hex();
        format!("{{\"files\":[{{\"path\":\"{path}\",\"sha256\":\"{hex}\",\"size\":{size}}}]}}")
    };
    let new = |name, expected, files: fn() -> Vec<FileEntry>| {
        case("manifest", name, expected, move || {
            Manifest::new(files()).map(drop).map_err(|error| error.to_string())
        })
    };
    vec![
        json("deep", "invalid type: sequence", "[".repeat(1 << 20)),
        json("NaN as a size", "expected", file("a", "NaN")),
        json("infinity as a size", "number out of range", file("a", "1e999")),
        json("a negative size", "integer `-1`", file("a", "-1")),
        json(
            "a size beyond 64 bits",
            "invalid type",
            file("a", "18446744073709551616"),
        ),
        json(
            "a size beyond what can be counted",
            "more than can be counted",
            file("a", "18446744073709551615"),
        ),
        json(
            "a digest in capitals",
            "canonical form",
            file("a", "1").replace("e3b0", "E3B0"),
        ),
        json("a path that leaves", "empty, `.` or `..`", file("../a", "1")),
        json(
            "an unknown field of 1 MB",
            "unknown field `xxxx",
            format!("{{\"{}\":1}}", "x".repeat(1 << 20)),
        ),
        new("no files", "at least one file", Vec::new),
        new("10,001 files", "10001 files", || {
            (0..=MAX_FILES).map(|i| entry(&i.to_string(), 1)).collect()
        }),
        new("sizes that overflow together", "more than can be counted", || {
            vec![entry("a", u64::MAX), entry("b", u64::MAX)]
        }),
        new("one path twice", "meet where case is ignored", || {
            vec![entry("a", 1), entry("a", 1)]
        }),
        new("paths that meet", "meet where case is ignored", || {
            vec![entry("Ä", 1), entry("ä", 1)]
        }),
        new("a file that is a folder", "is a file and a folder", || {
            vec![entry("A", 1), entry("a/b", 1)]
        }),
    ]
}

fn paths() -> Vec<Case> {
    let of = |name, expected, path: String| {
        case("path", name, expected, move || {
            check_path(&path).map_err(|error| error.to_string())
        })
    };
    vec![
        of("up", "empty, `.` or `..`", "a/../../etc/passwd".to_owned()),
        of("absolute", "must be relative", "/etc/passwd".to_owned()),
        of("a drive", "backslash, a colon", "c:a".to_owned()),
        of("backslashes", "backslash", "a\\..\\b".to_owned()),
        of("NUL", "control character", "a\0b".to_owned()),
        of("a line end", "path `a\\nb`", "a\nb".to_owned()),
        of("a device", "name of a device", "CON".to_owned()),
        of(
            "a device with an extension",
            "name of a device",
            "sub/aux.txt".to_owned(),
        ),
        of(
            "a device with a small digit",
            "name of a device",
            "lpt¹.json".to_owned(),
        ),
        of("a dot at the end", "ends with a space or a dot", "a./b".to_owned()),
        of("1 MB", "longer than 512 bytes", "a/".repeat(1 << 19)),
        of("a part of 300 bytes", "longer than 255 bytes", "a".repeat(300)),
    ]
}

fn indexes() -> Vec<Case> {
    const INDEX: &str = "model.safetensors.index.json";
    let of = |name, expected, json: fn() -> String| {
        case("index", name, expected, move || {
            let manifest =
                Manifest::new(vec![entry(INDEX, 1), entry("1.safetensors", 1)]).map_err(|e| e.to_string())?;
            weight_files(&manifest, Some(json().as_bytes()))
                .map(drop)
                .map_err(|error| error.to_string())
        })
    };
    vec![
        of("deep", "EOF while parsing a list", || {
            format!("{{\"metadata\":{}", "[".repeat(1 << 20))
        }),
        of("a text of 10 MB for the map", "invalid type: string", || {
            format!("{{\"weight_map\":\"{}\"}}", "x".repeat(10 << 20))
        }),
        of("10 MB of tensors", "more than 262144 members", || {
            let members: Vec<_> = (0..500_000).map(|i| format!("\"{i}\":\"1.safetensors\"")).collect();
            format!("{{\"weight_map\":{{{}}}}}", members.join(","))
        }),
        of("one tensor twice", "stands twice", || {
            "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}".to_owned()
        }),
        of("a shard above the folder", "`../1.safetensors`", || {
            "{\"weight_map\":{\"a\":\"../1.safetensors\"}}".to_owned()
        }),
        of("a shard of 1 MB", "which is not there", || {
            format!("{{\"weight_map\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20))
        }),
    ]
}

const TASK: &str = "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: a.jsonl}}\n\
    output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: 0\ndoc_to_choice: [a, b]\n";

/// Nine lists of ten, each of the one before.
fn laughs() -> String {
    let mut yaml = "a0: &a0 [lol]\n".to_owned();
    for i in 1..=9 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        yaml.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    yaml
}

fn tasks() -> Vec<Case> {
    let of = |name, expected, yaml: fn() -> String| {
        case("task YAML", name, expected, move || {
            TaskFile::parse(&yaml()).map(drop).map_err(|error| error.to_string())
        })
    };
    let with = |name, expected, extra: &'static str| {
        case("task YAML", name, expected, move || {
            let key = extra.split(':').next().unwrap_or_default();
            let kept: Vec<&str> = TASK.lines().filter(|line| !line.starts_with(key)).collect();
            let yaml = format!("{}\n{extra}", kept.join("\n"));
            TaskFile::parse(&yaml).map(drop).map_err(|error| error.to_string())
        })
    };
    vec![
        of("a billion laughs", "repetition limit", || format!("{TASK}{}", laughs())),
        of("one list named 50,000 times", "means more than 4 MiB", || {
            format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(50_000), "*a,".repeat(50_000))
        }),
        of("one text named 50,000 times", "means more than 4 MiB", || {
            format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(50_000))
        }),
        of("a list of itself", "no YAML", || "a: &a [*a]\n".to_owned()),
        of("deep lists", "recursion limit", || "[".repeat(10_000)),
        of("deep mappings", "recursion limit", || "{a: ".repeat(10_000)),
        of("deep blocks", "recursion limit", || {
            (0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()
        }),
        of("2 MB", "1048576 are the most", || {
            format!("{TASK}description: {}\n", "x".repeat(2 << 20))
        }),
        of("NUL", "no YAML", || "task: a\0b\n".to_owned()),
        of("a name with NUL", "must be a name", || "task: \"a\\0b\"\n".to_owned()),
        of("a name of 1 MB", "must be a name", || {
            format!("task: {}\n", "x".repeat(1_000_000))
        }),
        of("a list", "no mapping", || "[1]".to_owned()),
        of("two documents", "no YAML", || format!("{TASK}---\n{TASK}")),
        of("one field twice", "`task` stands twice", || format!("{TASK}task: u\n")),
        with("Python", "never run here", "doc_to_text: !function os.system"),
        with(
            "Python in a list",
            "never run here",
            "doc_to_choice: [!function os.system]",
        ),
        with(
            "Python in a mapping",
            "never run here",
            "doc_to_choice: {a: !function os.system}",
        ),
        with("NaN shots", "a number from 0 on", "num_fewshot: .nan"),
        with("negative shots", "a number from 0 on", "num_fewshot: -1"),
        with("shots beyond 32 bits", "a number from 0 on", "num_fewshot: 4294967296"),
        with("an infinite target", "may be a whole number", "doc_to_target: .inf"),
        with(
            "a field of control characters",
            "`a\\u{7}b` is not understood",
            "\"a\\ab\": 1",
        ),
        with(
            "files of numbers",
            "a path or a list of paths",
            "dataset_kwargs: {data_files: {test: [1]}}",
        ),
    ]
}

fn suites() -> Vec<Case> {
    let yaml = |name, expected, yaml: String| {
        case("suite", name, expected, move || {
            SuiteFile::parse(&yaml).map(drop).map_err(|error| error.to_string())
        })
    };
    let json = |name, expected, json: String| {
        case("suite", name, expected, move || {
            let definition: SuiteDefinition = serde_json::from_str(&json).map_err(|error| error.to_string())?;
            definition.check().map_err(|error| error.to_string())
        })
    };
    let blob = format!("{{\"digest\":\"{}\",\"size_bytes\":1}}", Digest::of(b""));
    let task = |name: &str| format!("{{\"task\":\"{name}\",\"yaml\":{blob},\"data\":{{}}}}");
    let suite = |name: &str, tasks: &[String]| format!("{{\"suite\":\"{name}\",\"tasks\":[{}]}}", tasks.join(","));
    vec![
        yaml(
            "a billion laughs",
            "repetition limit",
            format!("suite: s\ntasks: [a]\n{}", laughs()),
        ),
        yaml(
            "a negative limit",
            "integer `-1`",
            "suite: s\ntasks: [a]\nlimit: -1\n".to_owned(),
        ),
        yaml(
            "half a limit",
            "floating point `0.5`",
            "suite: s\ntasks: [a]\nlimit: 0.5\n".to_owned(),
        ),
        json(
            "a name that leaves",
            "must be 1 to 96 letters",
            suite("../s", &[task("t")]),
        ),
        json("1,001 tasks", "1 to 1000 tasks", suite("s", &vec![task("t"); 1001])),
        json(
            "one task twice",
            "has task `t` twice",
            suite("s", &[task("t"), task("t")]),
        ),
        json(
            "a digest that is none",
            "is no digest: write",
            suite("s", &[task("t")]).replace(&Digest::of(b"").to_string(), "sha256:0"),
        ),
    ]
}
