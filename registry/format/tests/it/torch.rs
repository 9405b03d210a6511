//! PyTorch files made by hand, honest and malicious: what is read is right, what lies is refused by name.

use fineline_format::weights::{read_tensor, read_tensors, tensor_digest};
use fineline_format::{Container, Segment, Tensor, TensorLayout, segments};

use crate::craft::{self, Zip, bytes, dict, float_tensor, global, int, state_dict, text, tuple};

fn read(file: &[u8]) -> Result<Vec<Tensor>, String> {
    read_tensors(&file, Container::TorchZip, "m.bin").map_err(|error| error.to_string())
}

/// Floats 0, 1, 2 … as bytes.
fn floats(n: u8) -> Vec<u8> {
    (0..n).flat_map(|i| f32::from(i).to_le_bytes()).collect()
}

fn file(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut zip = Zip::default();
    zip.entry("m/data.pkl", pickle).entry("m/byteorder", b"little");
    for (key, storage) in storages.iter().enumerate() {
        zip.entry(&format!("m/data/{key}"), storage);
    }
    zip.finish()
}

#[test]
fn views_are_read_in_row_major_order() {
    let pickle = state_dict(&[
        ("whole", float_tensor("0", 6, 0, &[2, 3], &[3, 1])),
        ("transposed", float_tensor("0", 6, 0, &[3, 2], &[1, 3])),
        ("column", float_tensor("0", 6, 2, &[2], &[3])),
        ("row", float_tensor("0", 6, 3, &[1, 3], &[77, 1])),
        ("scalar", float_tensor("0", 6, 5, &[], &[])),
        ("empty", float_tensor("0", 6, 0, &[0, 4], &[4, 1])),
        ("repeated", float_tensor("0", 6, 1, &[2, 2], &[0, 1])),
    ]);
    let file = file(&pickle, &[floats(6)]);

    let tensors = read(&file).unwrap();

    let values = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
        let raw = read_tensor(&file, tensor).unwrap();
        assert_eq!(raw.len() as u64, tensor.size_bytes());
        raw.chunks(4)
            .map(|value| f32::from_le_bytes(value.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(values("whole"), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(values("transposed"), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(values("column"), [2., 5.]);
    assert_eq!(values("row"), [3., 4., 5.]);
    assert_eq!(values("scalar"), [5.]);
    assert_eq!(values("empty"), [0.; 0]);
    assert_eq!(values("repeated"), [1., 2., 1., 2.]);
    let layout = |name: &str| &tensors.iter().find(|tensor| tensor.name == name).unwrap().layout;
    assert!(matches!(layout("row"), TensorLayout::Contiguous { size_bytes: 12, .. }));
    assert!(matches!(layout("column"), TensorLayout::Strided { .. }));
}

#[test]
fn a_view_has_the_digest_of_its_values() {
    let transposed = state_dict(&[("w", float_tensor("0", 6, 0, &[3, 2], &[1, 3]))]);
    let plain = state_dict(&[("w", float_tensor("0", 6, 0, &[3, 2], &[2, 1]))]);
    let values = [0_f32, 3., 1., 4., 2., 5.]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let (transposed, plain) = (file(&transposed, &[floats(6)]), file(&plain, &[values]));

    let digest = |file: &[u8]| tensor_digest(&file, &read(file).unwrap()[0], &|_, _| None).unwrap();

    assert_eq!(digest(&transposed), digest(&plain));
}

#[test]
fn the_forms_that_trainers_write_are_read() {
    let tensor = || float_tensor("0", 6, 0, &[6], &[1]);
    let call = |name: &str, args: &[Vec<u8>]| [global(name), tuple(args), b"R".to_vec()].concat();
    let parameter = call(
        "torch._utils _rebuild_parameter",
        &[tensor(), bytes(b"\x88"), bytes(b"N")],
    );
    let typed = call(
        "torch._tensor _rebuild_from_type_v2",
        &[
            global("torch._utils _rebuild_tensor_v2"),
            global("torch Tensor"),
            tuple(&craft::tensor_args("FloatStorage", "0", 6, 0, &[6], &[1])),
            bytes(b"}"),
        ],
    );
    let mut untyped_args = craft::tensor_args("UntypedStorage", "0", 24, 1, &[5], &[1]);
    untyped_args.push(global("torch uint32"));
    let untyped = call("torch._utils _rebuild_tensor_v3", &untyped_args);
    let pair_list = [b"](".to_vec(), tuple(&[text("w"), tensor()]), b"e".to_vec()].concat();
    let old_dict = call("collections OrderedDict", &[pair_list]);
    let with_metadata = [old_dict.clone(), dict(&[("_metadata", bytes(b"}"))]), b"b".to_vec()].concat();
    let pickles = [
        ("F32", state_dict(&[("w", tensor())])),
        ("F32", state_dict(&[("w", parameter)])),
        ("F32", state_dict(&[("w", typed)])),
        ("U32", state_dict(&[("w", untyped)])),
        ("F32", craft::pickle(&old_dict)),
        ("F32", craft::pickle(&with_metadata)),
        (
            "F32",
            craft::pickle(&dict(&[("model", dict(&[("w", tensor())])), ("epoch", int(3))])),
        ),
        ("F32", craft::pickle(&dict(&[("state_dict", dict(&[("w", tensor())]))]))),
    ];
    for (i, (dtype, pickle)) in pickles.iter().enumerate() {
        let tensors = read(&file(pickle, &[floats(6)])).unwrap_or_else(|error| panic!("form {i}: {error}"));
        assert_eq!(tensors.len(), 1, "form {i}");
        assert_eq!(
            (tensors[0].name.as_str(), tensors[0].dtype.as_str()),
            ("w", *dtype),
            "form {i}"
        );
    }
}

#[test]
fn a_pickle_that_lies_is_refused_by_name() {
    let of = |tensor| state_dict(&[("w", tensor)]);
    let call = |name: &str| [global(name), tuple(&[text("id")]), b"R".to_vec()].concat();
    let many: Vec<_> = (0..20).map(|i| format!("w{i}")).collect();
    let aliases: Vec<_> = many
        .iter()
        .map(|name| (name.as_str(), float_tensor("0", 60, 0, &[600, 60], &[0, 1])))
        .collect();
    let cases = [
        (
            of(float_tensor("0", 6, 1, &[6], &[1])),
            "tensor `w`: it reaches outside",
        ),
        (
            of(float_tensor("0", 6, 0, &[2, 3], &[4, 1])),
            "tensor `w`: it reaches outside",
        ),
        (
            of(float_tensor("0", 7, 0, &[6], &[1])),
            "has 24 bytes and should have 28",
        ),
        (of(float_tensor("1", 6, 0, &[6], &[1])), "`data/1` is not in the zip"),
        (of(float_tensor("0", 6, 0, &[6], &[1, 1])), "differ in length"),
        (of(float_tensor("0", 6, -1, &[6], &[1])), "negative offset"),
        (of(float_tensor("0", 6, 0, &[-6], &[1])), "negative size"),
        (of(float_tensor("0", 6, 0, &[1; 65], &[1; 65])), "65 dimensions"),
        (of(float_tensor("0", 6, 0, &[i64::MAX, i64::MAX], &[0, 0])), "overflows"),
        (
            of(float_tensor("0", 6, 0, &[2, 2], &[i64::MAX, i64::MAX])),
            "reaches outside",
        ),
        (of(call("posix system")), "`posix.system`"),
        (of(call("builtins eval")), "`builtins.eval`"),
        (of(int(7)), "`w` of its dict is no tensor"),
        (state_dict(&aliases), "share storages"),
        (
            state_dict(&[
                ("w", float_tensor("0", 6, 0, &[6], &[1])),
                ("w", float_tensor("0", 6, 0, &[6], &[1])),
            ]),
            "stands twice",
        ),
        (craft::pickle(&int(1)), "no dict"),
        (b"\x80\x02}".to_vec(), "cut short"),
    ];
    for (pickle, expected) in cases {
        let storage = if expected == "share storages" {
            floats(60)
        } else {
            floats(6)
        };
        let error = read(&file(&pickle, &[storage])).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("m.bin"),
            "expected `{expected}`: {error}"
        );
    }
}

#[test]
fn a_zip_that_lies_is_refused_by_name() {
    let pickle = state_dict(&[("w", float_tensor("0", 6, 0, &[6], &[1]))]);
    let honest = || {
        let mut zip = Zip::default();
        zip.entry("m/data.pkl", &pickle).entry("m/data/0", &floats(6));
        zip
    };
    let edited = |edit: &dyn Fn(&mut Zip)| {
        let mut zip = honest();
        edit(&mut zip);
        zip.finish()
    };
    assert_eq!(read(&honest().finish()).unwrap().len(), 1);
    assert_eq!(
        read(&edited(&|zip| zip.zip64 = true)).unwrap(),
        read(&honest().finish()).unwrap()
    );
    let cases: [(&str, Vec<u8>); 9] = [
        (
            "`m/data/0` stands twice",
            edited(&|zip| {
                zip.entry("m/data/0", &floats(6));
            }),
        ),
        (
            "byte order",
            edited(&|zip| {
                zip.entry("m/byteorder", b"big");
            }),
        ),
        ("no PyTorch file", edited(&|zip| zip.entries[1].method = 8)),
        ("no PyTorch file", edited(&|zip| zip.entries[1].flags = 1)),
        (
            "overlaps another",
            edited(&|zip| zip.entries[1].header_offset = Some(0)),
        ),
        (
            "`m/data/0` ends outside",
            edited(&|zip| zip.entries[1].size = Some(1 << 20)),
        ),
        ("overlaps the directory", edited(&|zip| zip.entries[1].size = Some(25))),
        (
            "lies outside",
            edited(&|zip| zip.entries[1].header_offset = Some(1 << 30)),
        ),
        ("another number of entries", edited(&|zip| zip.n_entries = Some(3))),
    ];
    for (expected, file) in cases {
        let error = read(&file).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("m.bin"),
            "expected `{expected}`: {error}"
        );
    }
}

#[test]
fn a_zip_of_something_else_is_cut_by_its_content() {
    let mut zip = Zip::default();
    let file = zip.entry("notes.txt", b"not weights").finish();

    let (_, segments) = segments(&file, "training_args.bin").unwrap();

    let size_bytes = file.len() as u64;
    assert_eq!(segments, [Segment::Cdc { offset: 0, size_bytes }]);
    assert!(read(&file).unwrap_err().contains("no PyTorch file"));
}

#[test]
fn a_bare_pickle_is_told_from_what_is_broken() {
    let file = b"\x80\x02}q\x00.".to_vec();
    let (container, _) = segments(&file, "m.bin").unwrap();
    let error = read_tensors(&file, container, "m.bin").unwrap_err();
    assert!(matches!(error, fineline_format::FormatError::LegacyTorch(_)), "{error}");
}
