//! Writes the first inputs of every target: small, honest files of each kind.

#[path = "../../registry/format/tests/it/craft.rs"]
mod craft;

use std::path::Path;

use craft::{Zip, dict, float_tensor, int, state_dict};
use fineline_format::frame::{encode, encode_raw};
use fineline_format::{Digest, Element, FileEntry, Manifest};

fn main() -> std::io::Result<()> {
    let seeds = [
        ("safetensors", safetensors()),
        ("torch", torch()),
        ("frame", frames()),
        ("manifest", manifests()),
        ("range", ranges()),
        ("task_yaml", yaml()),
    ];
    for (target, inputs) in seeds {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&dir)?;
        for (i, input) in inputs.iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{i}")), input)?;
        }
    }
    Ok(())
}

fn safetensors() -> Vec<Vec<u8>> {
    let headers = [
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (
            r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[0,3],"data_offsets":[2,2]}}"#,
            2,
        ),
        (
            r#"{"w":{"dtype":"I64","shape":[1,1],"data_offsets":[0,8]},"v":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[8,12]}}"#,
            12,
        ),
    ];
    let file = |(header, n): (&str, usize)| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; n]].concat()
    };
    headers.into_iter().map(file).collect()
}

fn torch() -> Vec<Vec<u8>> {
    let pickles = [
        state_dict(&[
            ("w", float_tensor("0", 6, 0, &[2, 3], &[3, 1])),
            ("v", float_tensor("1", 16, 2, &[2, 2], &[1, 4])),
        ]),
        craft::pickle(&dict(&[
            ("model", dict(&[("w", float_tensor("0", 6, 0, &[6], &[1]))])),
            ("epoch", int(3)),
        ])),
        state_dict(&[("w", float_tensor("0", 6, 1, &[2, 2], &[0, 1]))]),
    ];
    let whole = |pickle: &Vec<u8>, zip64: bool| {
        let mut zip = Zip {
            zip64,
            ..Zip::default()
        };
        zip.entry("m/data.pkl", pickle)
            .entry("m/byteorder", b"little")
            .entry("m/data/0", &[1; 24])
            .entry("m/data/1", &[2; 64]);
        [&b"z"[..], &zip.finish()].concat()
    };
    let mut inputs: Vec<Vec<u8>> = pickles.iter().map(|pickle| [&b"p"[..], pickle].concat()).collect();
    inputs.push(whole(&pickles[0], false));
    inputs.push(whole(&pickles[1], true));
    inputs
}

fn frames() -> Vec<Vec<u8>> {
    let floats: Vec<u8> = (0..600_u16)
        .flat_map(|i| ((f32::from(i)).sin() * 0.02).to_le_bytes())
        .collect();
    let halves: Vec<u8> = floats.chunks(4).flat_map(|float| [float[2], float[3]]).collect();
    vec![
        encode_raw(b"chunk"),
        encode(&[7; 2000], Element::Unknown),
        encode(&floats, Element::F32),
        encode(&halves, Element::Bf16),
    ]
}

fn manifests() -> Vec<Vec<u8>> {
    let manifest = |paths: &[&str]| {
        let entry = |path: &&str| FileEntry {
            path: (*path).to_owned(),
            size_bytes: path.len() as u64,
            digest: Digest::of(path.as_bytes()),
        };
        Manifest::new(paths.iter().map(entry).collect())
            .expect("honest paths")
            .to_canonical_json()
    };
    vec![
        manifest(&["config.json"]),
        manifest(&["a b", "onnx/model.bin", "模型.json"]),
        b"config.json\nmodel.safetensors\nonnx/x.bin".to_vec(),
    ]
}

fn ranges() -> Vec<Vec<u8>> {
    let range = |size: u64, text: &str| [&size.to_le_bytes()[..], text.as_bytes()].concat();
    vec![
        range(10, "bytes=0-4"),
        range(10, "bytes=5-"),
        range(1 << 40, "bytes=-3"),
        range(0, "bytes=0-"),
        range(u64::MAX, "bytes=0-18446744073709551615"),
    ]
}

fn yaml() -> Vec<Vec<u8>> {
    const TASK: &str = "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: a.jsonl, train: [b.jsonl]}}\n\
        output_type: multiple_choice\ntest_split: test\ntraining_split: train\nnum_fewshot: 2\n\
        doc_to_text: \"{{q}}\"\ndoc_to_target: 0\ndoc_to_choice: [a, b]\nmetadata: {version: 1.0}\n\
        metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n";
    vec![
        TASK.into(),
        "suite: s\ntasks: [a.yaml]\nlimit: 5\ndtype: bfloat16\n".into(),
        "a: &a [1, x]\nb: *a\nc: !function u.f\n".into(),
    ]
}
