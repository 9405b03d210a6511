//! The readers and the splitter on a real pretraining run in both containers.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use fineline_format::frame::{decode, encode};
use fineline_format::weights::{read_tensors, tensor_digest, weights_digest};
use fineline_format::{Digest, Segment, segments};

fn data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if data.join("run").is_dir() {
        return Some(data);
    }
    println!("skipped: format/real_run: there is no ../shared/data beside the clone");
    None
}

/// The weight files of a checkpoint, by name.
fn weight_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let weights = entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors" || end == "bin"));
    weights
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

fn chunks(files: &BTreeMap<String, Vec<u8>>) -> Vec<(Digest, u64)> {
    let mut chunks = Vec::new();
    for (name, bytes) in files {
        let mut at = 0;
        for segment in segments(bytes, name).unwrap().1 {
            let Segment::Fixed { offset, size_bytes, .. } = segment else {
                panic!("{name} is no container")
            };
            assert_eq!(offset, at, "segments cover {name} in order");
            at += size_bytes;
            let range = usize::try_from(offset).unwrap()..usize::try_from(at).unwrap();
            chunks.push((Digest::of(&bytes[range]), size_bytes));
        }
        assert_eq!(at, bytes.len() as u64, "segments cover {name} to its end");
    }
    chunks
}

fn digest_of_weights(files: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut rows = Vec::new();
    for (name, bytes) in files {
        let (container, _) = segments(bytes, name).unwrap();
        for tensor in read_tensors(bytes, container, name).unwrap() {
            let digest = tensor_digest(bytes, &tensor, &|_, _| None).unwrap();
            rows.push((tensor.name, tensor.dtype, tensor.shape, digest));
        }
    }
    weights_digest(rows).unwrap()
}

#[test]
fn both_containers_of_a_step_share_their_chunks_and_have_one_weights_digest() {
    let Some(data) = data() else { return };
    let mut digests = HashSet::new();
    for step in ["step-000016", "step-000512", "step-003000"] {
        let safetensors = weight_files(&data.join("run").join(step));
        let torch = weight_files(&data.join("run_bin").join(step));
        let held: HashSet<Digest> = chunks(&safetensors).into_iter().map(|(digest, _)| digest).collect();
        let all = chunks(&torch);
        let shared: u64 = all
            .iter()
            .filter(|(digest, _)| held.contains(digest))
            .map(|(_, size)| size)
            .sum();
        let total: u64 = all.iter().map(|(_, size)| size).sum();
        println!(
            "{step}: {:.4} of the .bin bytes are shared",
            shared as f64 / total as f64
        );
        assert!(shared * 100 >= total * 99, "{shared} of {total}");
        assert_eq!(digest_of_weights(&safetensors), digest_of_weights(&torch));
        digests.insert(digest_of_weights(&torch));
    }
    assert_eq!(digests.len(), 3, "other weights have another digest");
}

#[test]
fn a_file_that_is_cut_short_is_refused_by_name() {
    let Some(data) = data() else { return };
    for dir in ["run/step-000512", "run_bin/step-000512"] {
        for (name, bytes) in weight_files(&data.join(dir)) {
            for cut in [1, 100, bytes.len() / 2, bytes.len() - 4] {
                let cut_short = bytes[..bytes.len() - cut].to_vec();
                let error = segments(&cut_short, &name).unwrap_err().to_string();
                assert!(error.contains(&name), "{error}");
            }
        }
    }
}

#[test]
fn real_weights_are_framed_in_their_planes_and_come_back() {
    let Some(data) = data() else { return };
    let (mut raw_bytes, mut framed_bytes) = (0, 0);
    for (name, bytes) in weight_files(&data.join("run/step-003000")) {
        for segment in segments(&bytes, &name).unwrap().1 {
            let Segment::Fixed {
                offset,
                size_bytes,
                element,
            } = segment
            else {
                panic!("{name} is no container")
            };
            let raw = &bytes[usize::try_from(offset).unwrap()..usize::try_from(offset + size_bytes).unwrap()];
            let frame = encode(raw, element);
            assert_eq!(decode(&frame).unwrap(), raw);
            raw_bytes += raw.len();
            framed_bytes += frame.len();
        }
    }
    println!(
        "{:.3} of the raw bytes are kept",
        framed_bytes as f64 / raw_bytes as f64
    );
    // Measured: 0.683. The bound leaves room for another version of zstd.
    assert!(framed_bytes * 100 < raw_bytes * 70, "{framed_bytes} of {raw_bytes}");
}

#[test]
fn mutated_real_files_never_panic() {
    let Some(data) = data() else { return };
    for dir in ["run_bin/step-000016", "run/step-000016"] {
        let files = weight_files(&data.join(dir));
        let (name, bytes) = files.first_key_value().unwrap();
        let mut state = 12345u64;
        let mut n_refused = 0;
        for _ in 0..300 {
            let mut mutated = bytes.clone();
            for _ in 0..4 {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                // What is parsed stands at both ends; the values between hold nothing to parse.
                let at = usize::try_from(state >> 33).unwrap() % 3000;
                let at = if state & 1 == 0 { at } else { bytes.len() - 1 - at };
                mutated[at] = state.to_le_bytes()[3];
            }
            let tensors = segments(&mutated, name).and_then(|(container, _)| read_tensors(&mutated, container, name));
            let Ok(tensors) = tensors else {
                n_refused += 1;
                continue;
            };
            for tensor in tensors {
                tensor_digest(&mutated, &tensor, &|_, _| None).unwrap();
            }
        }
        assert!(n_refused > 100, "{n_refused} of 300 are refused");
    }
}
