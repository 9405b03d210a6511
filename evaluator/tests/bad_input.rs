//! Templates that loop or grow, documents and configurations that are wrong: refused in words, in bounded time and memory.
//! A process of its own, so that its peak of memory is theirs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fineline_evaluator::config::Config;
use fineline_evaluator::task::{Overrides, PreparedTask};
use serde_json::json;

/// The longest that a case may take: a guard against loops, not a measurement.
const MAX_TIME: Duration = Duration::from_secs(20);

/// The most memory that the whole table may take.
const MAX_MEMORY_KB: u64 = 768 << 10;

/// A task of one document with a template for its context and one for its choices.
fn prepare(text: &str, choices: &str, documents: &str) -> Result<(), String> {
    let yaml = json!({
        "task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}},
        "output_type": "multiple_choice", "test_split": "test",
        "doc_to_text": text, "doc_to_target": 0, "doc_to_choice": choices,
    });
    let data = BTreeMap::from([("test".to_owned(), vec![documents.as_bytes().to_vec()])]);
    let overrides = Overrides {
        limit: None,
        num_fewshot: None,
    };
    let prepared = PreparedTask::new(&yaml.to_string(), &data, overrides);
    prepared.map(drop).map_err(|error| format!("{error:#}"))
}

const DOCUMENT: &str = r#"{"q": "a question", "c": ["yes", "no"]}"#;

fn template(text: &str) -> Result<(), String> {
    prepare(text, "c", DOCUMENT)
}

fn config(extra: &str) -> Result<(), String> {
    let fields = json!({"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "vocab_size": 512});
    let fields = fields.to_string();
    let json = format!("{},{extra}}}", &fields[..fields.len() - 1]);
    Config::parse(json.as_bytes())
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// What a case is called, words of its refusal, and its result.
type Case = (&'static str, &'static str, fn() -> Result<(), String>);

const TEMPLATES: &[Case] = &[
    ("a loop of a billion", "too many elements", || {
        template("{% for i in range(1000000000) %}x{% endfor %}")
    }),
    ("loops in loops", "engine ran out of fuel", || {
        template(
            "{% for i in range(99999) %}{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        )
    }),
    ("loops that write", "more than 4194304 bytes", || {
        template(&format!(
            "{{% for i in range(99999) %}}{}{{% endfor %}}",
            "x".repeat(10_000)
        ))
    }),
    ("a text times a billion", "`*` is not supported", || {
        template("{{ 'x' * 1000000000 }}")
    }),
    ("a text that doubles", "`{% set %}` is not supported", || {
        template(&"{% set q = q ~ q %}".repeat(40))
    }),
    (
        "a text that doubles in loops",
        "`[` is not supported in a `for`",
        || {
            template(&format!(
                "{}{}",
                "{% for q in [q ~ q] %}".repeat(40),
                "{% endfor %}".repeat(40)
            ))
        },
    ),
    ("a block that doubles", "`{% set %}` is not supported", || {
        template("{% set q %}{{ q }}{{ q }}{% endset %}{{ q }}")
    }),
    (
        "a block that doubles behind raw text",
        "`{% raw %}` is not supported",
        || template("{% raw %}{{ \"{% endraw %}{% set q = q ~ q %}\" }}"),
    ),
    (
        "a block that doubles behind a comment",
        "`{% set %}` is not supported",
        || template("{#} {{ \" #}{% set q = q ~ q %}{# \" }} #}"),
    ),
    ("a function denied", "function `namespace` is not supported", || {
        template("{{ not namespace(a=1) }}")
    }),
    ("a macro of itself", "`{% macro %}` is not supported", || {
        template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")
    }),
    ("a loop of itself", "`recursive` is not supported", || {
        template("{% for x in c recursive %}{{ loop(c) }}{% endfor %}")
    }),
    ("a loop called", "`loop` is not supported", || {
        template("{% for x in c %}{{ loop(c) }}{% endfor %}")
    }),
    ("escapes that double", "filter `tojson` is not supported", || {
        template(&format!("{{{{ q{} }}}}", "|tojson".repeat(40)))
    }),
    ("a filter by another name", "filter `map` is not supported", || {
        template("{{ c|map('upper')|join }}")
    }),
    (
        "a text between all its letters",
        "a text has more than 4194304 bytes",
        || {
            let long = json!({"q": "x".repeat(3 << 20), "c": ["a"]}).to_string();
            prepare("{{ q|replace('', q) }}", "c", &long)
        },
    ),
    ("the same as a method", "a text has more than 4194304 bytes", || {
        let long = json!({"q": "x".repeat(3 << 20), "c": ["a"]}).to_string();
        prepare("{{ q.replace('', q) }}", "c", &long)
    }),
    ("a text joined by itself", "a text has more than 4194304 bytes", || {
        let long = json!({"q": "x".repeat(3 << 20), "c": ["a"]}).to_string();
        prepare("{{ q|list|join(q) }}", "c", &long)
    }),
    (
        "a field as wide as it is asked",
        "method `center` is not supported",
        || template("{{ q.center(1000000000) }}"),
    ),
    ("a file", "`{% include %}` is not supported", || {
        template("{% include '/etc/passwd' %}")
    }),
    ("a function", "function `namespace` is not supported", || {
        template("{{ namespace(a=1) }}")
    }),
    ("a mapping", "a mapping is not supported", || {
        template("{{ {'a': 1}.a }}")
    }),
    ("34 texts joined", "32 are the most", || {
        template(&format!("{{{{ q{} }}}}", " ~ q".repeat(33)))
    }),
    ("a template of 1 MB", "16384 are the most", || {
        template(&"{{ q }}".repeat(100_000))
    }),
    ("deep parentheses", "template exceeds maximum recursion limits", || {
        template(&format!("{{{{ {}q{} }}}}", "(".repeat(5000), ")".repeat(5000)))
    }),
    ("a tag without an end", "has no end", || template("{{ q")),
    ("a name that is not there", "undefined value", || template("{{ nope }}")),
    ("a hundred thousand choices", "1 to 1000 choices", || {
        prepare("q", "{{ range(100000) }}", DOCUMENT)
    }),
    ("choices that are none", "which is no list", || {
        prepare("q", "{{ 5 }}", DOCUMENT)
    }),
    ("choices that double", "joins 40 texts", || {
        prepare("q", &format!("{{{{ [q{}] }}}}", " ~ q".repeat(40)), DOCUMENT)
    }),
];

const DOCUMENTS: &[Case] = &[
    ("NaN", "line 1 of split `test`", || {
        prepare("q", "c", r#"{"q": NaN, "c": []}"#)
    }),
    ("deep", "recursion limit", || {
        prepare("q", "c", &format!("{{\"q\":{}", "[".repeat(1 << 20)))
    }),
    ("a deep array", "is no array of documents", || {
        prepare("q", "c", &"[".repeat(1 << 20))
    }),
    ("an array with a number", "item 2 of split `test` is no object", || {
        prepare("q", "c", &format!("[{DOCUMENT}, 1]"))
    }),
    ("a list", "is no object", || prepare("q", "c", "[1]")),
    ("5 MB", "4194304 are the most", || {
        prepare("q", "c", &json!({"q": "x".repeat(5 << 20)}).to_string())
    }),
    ("none", "no documents", || prepare("q", "c", "\n\n")),
    ("a CSV of uneven rows", "row 2 of split `test`", || {
        generate("dataset_path: csv", "q,a\n1,2\n1\n", "")
    }),
    ("a CSV of many columns", "1000 are the most", || {
        generate("dataset_path: csv", &"a,".repeat(2000), "")
    }),
    ("a CSV with long names", "more than 128 bytes", || {
        generate("dataset_path: csv", &"a".repeat(1 << 20), "")
    }),
];

/// A task that generates, over a document or a CSV file.
fn generate(path: &str, documents: &str, extra: &str) -> Result<(), String> {
    let end = if path.ends_with("csv") { "csv" } else { "jsonl" };
    let yaml = format!(
        "task: t\n{path}\ndataset_kwargs: {{data_files: {{test: t.{end}}}}}\ntest_split: test\n\
         doc_to_text: q\ndoc_to_target: a\n{extra}\n"
    );
    let data = BTreeMap::from([("test".to_owned(), vec![documents.as_bytes().to_vec()])]);
    let prepared = PreparedTask::new(&yaml, &data, Overrides::default());
    prepared.map(drop).map_err(|error| format!("{error:#}"))
}

fn filter(pattern: &str) -> Result<(), String> {
    let filter = json!([{"name": "f", "filter": [
        {"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}
    ]}]);
    let extra = format!("filter_list: {filter}");
    generate("dataset_path: json", r#"{"q": "x", "a": "y"}"#, &extra)
}

const PATTERNS: &[Case] = &[
    ("open", "filter `f`: pattern `(`", || filter("(")),
    ("a billion states", "can't be used", || filter(r"(\w{1000}){1000}")),
    ("20 kB", "4096 are the most", || filter(&"a".repeat(20_000))),
    ("deep", "filter `f`", || filter(&"(".repeat(4000))),
    ("a range that goes down", "goes down", || filter("[z-a]")),
    ("an escape that is none", "`\\q` is not understood", || filter(r"\q")),
];

const CONFIGS: &[Case] = &[
    ("deep", "recursion limit", || {
        config(&format!("\"rope_scaling\":{{\"a\":{}", "[".repeat(1 << 20)))
    }),
    ("NaN", "can't be read", || config("\"rms_norm_eps\":NaN")),
    ("a negative size", "integer `-1`", || config("\"head_dim\":-1")),
    ("no heads", "`num_key_value_heads` is 0", || {
        config("\"num_key_value_heads\":0")
    }),
    ("no width of a head", "`head_dim` is 0", || config("\"head_dim\":0")),
    (
        "positions without end",
        "`max_position_embeddings` is 18446744073709551615",
        || config("\"max_position_embeddings\":18446744073709551615"),
    ),
    (
        "a table of positions without end",
        "`max_position_embeddings` of 16777216 by `head_dim` of 16384",
        || config("\"max_position_embeddings\":16777216,\"head_dim\":16384"),
    ),
    ("a negative base", "`rope_theta` is -1", || {
        config("\"rope_theta\":-1.0")
    }),
    ("a huge epsilon", "`rms_norm_eps` is", || {
        config("\"rms_norm_eps\":1e300")
    }),
];

#[test]
fn what_loops_or_grows_is_refused_in_words_in_bounded_time_and_memory() {
    template("{% if q is defined and q is not in(['', 'x']) and not (q == '') %}Q: {{ q.strip()|replace('[x]', '') }}{% for x in c %}\n{{ loop.index }}. {{ x ~ '.' }}{% endfor %}{# ok #}{% endif %}").unwrap();
    prepare("{{ q[0]|upper + q[1:] }}", "{{ [c[0], c[1]|lower] }}", DOCUMENT).unwrap();
    let mut wrong = Vec::new();
    template("{% set q = 'Q: it\\'s' %}{{ q + c[0] }}").unwrap();
    filter(r"#### (\-?[0-9\.\,]+)").unwrap();
    let groups = [
        ("template", TEMPLATES),
        ("document", DOCUMENTS),
        ("pattern", PATTERNS),
        ("config", CONFIGS),
    ];
    for (group, cases) in groups {
        for (name, expected, run) in cases {
            let begun = Instant::now();
            let result = run();
            let took = begun.elapsed();
            match result {
                Ok(()) => wrong.push(format!("{group}: {name}: it was taken")),
                Err(error) if !error.contains(expected) => {
                    wrong.push(format!("{group}: {name}: not `{expected}`: {error}"));
                }
                Err(error) if error.len() > 4000 => wrong.push(format!("{group}: {name}: {} bytes", error.len())),
                Err(_) if took > MAX_TIME => wrong.push(format!("{group}: {name}: it took {took:?}")),
                Err(_) => {}
            }
        }
        println!("bad input: {} cases: {group}", cases.len());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    println!("bad input: peak {peak} kB");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(peak < MAX_MEMORY_KB, "the table took {peak} kB");
}
