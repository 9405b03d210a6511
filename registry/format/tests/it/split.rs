//! The splitter on files of any shape, and the index of shards against the shards.

use std::collections::{BTreeMap, BTreeSet};

use fineline_format::split::SMALL_TENSOR_BYTES;
use fineline_format::weights::{check_index, index_path, read_tensors, tensor_digest, weight_files, weights_digest};
use fineline_format::{Container, Digest, FileEntry, Manifest, PIECE_BYTES, Segment, cdc_chunks, cdc_cuts, segments};
use proptest::prelude::*;

use crate::craft;

/// A safetensors file of byte tensors of these sizes; each size has its own content.
fn safetensors(sizes: &[u64]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (i, size) in sizes.iter().enumerate() {
        let begin = data.len() as u64;
        entries.push(format!(
            r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{begin},{}]}}"#,
            begin + size
        ));
        data.extend(noise(*size, *size));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A PyTorch file of the same tensors.
fn torch(sizes: &[u64]) -> Vec<u8> {
    let names: Vec<_> = (0..sizes.len()).map(|i| (format!("t{i}"), i.to_string())).collect();
    let tensor = |((name, key), size): (&'_ (String, String), &u64)| {
        let n = i64::try_from(*size).unwrap();
        let args = craft::tensor_args("ByteStorage", key, n, 0, &[n], &[1]);
        let call = [
            craft::global("torch._utils _rebuild_tensor_v2"),
            craft::tuple(&args),
            b"R".to_vec(),
        ]
        .concat();
        (name.clone(), call)
    };
    let tensors: Vec<_> = names.iter().zip(sizes).map(tensor).collect();
    let borrowed: Vec<_> = tensors
        .iter()
        .map(|(name, call)| (name.as_str(), call.clone()))
        .collect();
    let mut zip = craft::Zip::default();
    zip.entry("m/data.pkl", &craft::state_dict(&borrowed));
    for ((_, key), size) in names.iter().zip(sizes) {
        zip.entry(&format!("m/data/{key}"), &noise(*size, *size));
    }
    zip.finish()
}

/// Bytes without repeats, the same for the same seed (xorshift64).
fn noise(n: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let words = n.div_ceil(8);
    let mut bytes: Vec<u8> = (0..words).flat_map(|_| next()).collect();
    bytes.truncate(usize::try_from(n).unwrap());
    bytes
}

/// The chunks of a container, after checking that they cover it in order.
fn chunks(file: &[u8], name: &str) -> Vec<(u64, u64)> {
    let mut at = 0;
    let ranges = segments(&file, name).unwrap().1.into_iter().map(|segment| {
        let Segment::Fixed { offset, size_bytes, .. } = segment else {
            panic!("{name} is a container")
        };
        assert!(
            offset == at && (1..=PIECE_BYTES).contains(&size_bytes),
            "{segment:?} at {at}"
        );
        at += size_bytes;
        (offset, size_bytes)
    });
    let ranges: Vec<_> = ranges.collect();
    assert_eq!(at, file.len() as u64);
    ranges
}

fn digest_of_weights(file: &[u8], container: Container, name: &str) -> Digest {
    let tensors = read_tensors(&file, container, name).unwrap().into_iter();
    let rows = tensors.map(|tensor| {
        let digest = tensor_digest(&file, &tensor, &|_, _| None).unwrap();
        (tensor.name, tensor.dtype, tensor.shape, digest)
    });
    weights_digest(rows).unwrap()
}

#[test]
fn a_tensor_beyond_a_piece_is_cut_and_its_neighbours_are_not_joined_to_it() {
    let large = PIECE_BYTES + 5;
    let file = safetensors(&[100, 200, large, 300, SMALL_TENSOR_BYTES, SMALL_TENSOR_BYTES - 1, 7]);
    let header = file.len() as u64 - 600 - large - 2 * SMALL_TENSOR_BYTES - 6;

    let sizes: Vec<u64> = chunks(&file, "m.safetensors")
        .into_iter()
        .map(|(_, size)| size)
        .collect();

    assert_eq!(
        sizes,
        [
            header,
            300,
            PIECE_BYTES,
            5,
            300,
            SMALL_TENSOR_BYTES,
            SMALL_TENSOR_BYTES + 6
        ]
    );
}

#[test]
fn pieces_that_are_chunks_make_the_digest_without_reading() {
    let file = safetensors(&[PIECE_BYTES + 5]);
    let tensor = &read_tensors(&file, Container::Safetensors, "m").unwrap()[0];
    let read = tensor_digest(&file, tensor, &|_, _| None).unwrap();
    let ranges = chunks(&file, "m.safetensors");
    let known = |offset: u64, len: u64| {
        ranges.contains(&(offset, len)).then(|| {
            let begin = usize::try_from(offset).unwrap();
            Digest::of(&file[begin..begin + usize::try_from(len).unwrap()])
        })
    };
    // The bytes of the tensor are gone: only known pieces can make its digest.
    let no_bytes: Vec<u8> = Vec::new();

    assert_eq!(tensor_digest(&no_bytes, tensor, &known).unwrap(), read);
    assert!(tensor_digest(&no_bytes, tensor, &|_, _| None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_containers_share_their_large_tensors(sizes in prop::collection::vec(prop_oneof![0..64_u64, 16_000..17_000_u64, 20_000..90_000_u64], 0..12)) {
        let (a, b) = (safetensors(&sizes), torch(&sizes));
        let held = |file: &[u8], name: &str| -> BTreeSet<Vec<u8>> {
            let range = |(offset, size): (u64, u64)| usize::try_from(offset).unwrap()..usize::try_from(offset + size).unwrap();
            chunks(file, name).into_iter().map(|chunk| file[range(chunk)].to_vec()).collect()
        };
        let (a_chunks, b_chunks) = (held(&a, "m.safetensors"), held(&b, "m.bin"));

        for size in sizes.iter().filter(|size| **size >= SMALL_TENSOR_BYTES) {
            let content = noise(*size, *size);
            prop_assert!(a_chunks.contains(&content) && b_chunks.contains(&content));
        }
        prop_assert_eq!(segments(&a, "m.safetensors").unwrap(), segments(&a, "m.safetensors").unwrap());
        if !sizes.is_empty() {
            prop_assert_eq!(
                digest_of_weights(&a, Container::Safetensors, "a"),
                digest_of_weights(&b, Container::TorchZip, "b")
            );
        }
    }

    #[test]
    fn a_stream_is_cut_where_a_slice_is(n in 0..6_000_000_u64, seed: u64) {
        let data = noise(n, seed);

        let chunks: Vec<Vec<u8>> = cdc_chunks(data.as_slice()).collect::<Result<_, _>>().unwrap();

        let ends: Vec<usize> = chunks.iter().scan(0, |end, chunk| { *end += chunk.len(); Some(*end) }).collect();
        prop_assert_eq!(ends, cdc_cuts(&data));
        prop_assert_eq!(chunks.concat(), data);
    }

    #[test]
    fn bytes_of_any_kind_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), n in 0..300_u64) {
        for (name, start) in [("a.safetensors", n.to_le_bytes().to_vec()), ("a.bin", b"PK\x03\x04".to_vec())] {
            bytes.splice(0..bytes.len().min(start.len()), start);
            if let Ok((container, _)) = segments(&bytes, name) {
                let _ = read_tensors(&bytes, container, name);
            }
        }
    }
}

#[test]
fn an_insertion_moves_few_cuts() {
    let data = noise(24 << 20, 7);
    let mut edited = data.clone();
    edited.splice(9 << 20..9 << 20, *b"inserted");
    let chunks = |data: &[u8]| cdc_chunks(data).collect::<Result<Vec<_>, _>>().unwrap();

    let (before, after) = (chunks(&data), chunks(&edited));

    assert!((12..48).contains(&before.len()), "{}", before.len());
    let changed = after.iter().filter(|chunk| !before.contains(chunk)).count();
    assert!((1..=3).contains(&changed), "{changed}");
}

fn manifest(paths: &[&str]) -> Manifest {
    let entry = |path: &&str| FileEntry {
        path: (*path).to_owned(),
        size_bytes: 1,
        digest: Digest::of(b"x"),
    };
    Manifest::new(paths.iter().map(entry).collect()).unwrap()
}

const INDEX: &str = "model.safetensors.index.json";
const JSON: &[u8] = br#"{"metadata":{"total_size":2},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;

#[test]
fn the_weights_are_found_in_the_fixed_order() {
    let all = manifest(&[
        INDEX,
        "1.safetensors",
        "2.safetensors",
        "model.safetensors",
        "pytorch_model.bin",
    ]);
    let found = weight_files(&all, Some(JSON)).unwrap().unwrap();
    assert_eq!(index_path(&all).as_deref(), Some(INDEX));
    assert_eq!(found.index.as_deref(), Some(INDEX));
    assert_eq!(found.shards, ["1.safetensors", "2.safetensors"]);

    let one = manifest(&["model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"]);
    assert_eq!(index_path(&one), None);
    assert_eq!(weight_files(&one, None).unwrap().unwrap().shards, ["model.safetensors"]);
    assert_eq!(weight_files(&manifest(&["config.json"]), None).unwrap(), None);
}

#[test]
fn an_index_that_lies_is_refused_by_name() {
    let missing = weight_files(&manifest(&[INDEX, "1.safetensors"]), Some(JSON))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains(INDEX) && missing.contains("`2.safetensors`"),
        "{missing}"
    );
    let full = manifest(&[INDEX, "1.safetensors", "2.safetensors"]);
    for (json, expected) in [
        (&b"{}"[..], "weight_map"),
        (br#"{"weight_map":{}}"#, "empty"),
        (br#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}"#, "twice"),
        (br#"{"weight_map":{"a":"../1.safetensors"}}"#, "`../1.safetensors`"),
    ] {
        let error = weight_files(&full, Some(json)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(weight_files(&full, None).unwrap_err().to_string().contains("not given"));

    let shards = |one: &[&str], two: &[&str]| -> BTreeMap<String, BTreeSet<String>> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        BTreeMap::from([
            ("1.safetensors".into(), names(one)),
            ("2.safetensors".into(), names(two)),
        ])
    };
    check_index(INDEX, JSON, &shards(&["a"], &["b"])).unwrap();
    for (one, two, expected) in [
        (&["a"][..], &[][..], "tensor `b` is not in shard `2.safetensors`"),
        (&["a", "b"], &[], "tensor `b` is not in shard `2.safetensors`"),
        (&["a", "c"], &["b"], "`1.safetensors` holds tensor `c`"),
        (&["a", "b"], &["b"], "`1.safetensors` holds tensor `b`"),
    ] {
        let error = check_index(INDEX, JSON, &shards(one, two)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_tensor_in_two_shards_has_no_weights_digest() {
    let row = |name: &str| (name.to_owned(), "U8".parse().unwrap(), vec![1], Digest::of(b""));
    assert_eq!(
        weights_digest([row("b"), row("a")]).unwrap(),
        weights_digest([row("a"), row("b")]).unwrap()
    );
    assert!(
        weights_digest([row("a"), row("a")])
            .unwrap_err()
            .to_string()
            .contains("`a`")
    );
}
