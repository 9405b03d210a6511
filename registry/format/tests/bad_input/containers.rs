//! safetensors headers, zips and frames.

use fineline_format::frame::{decode, encode, encode_raw};
use fineline_format::weights::read_tensors;
use fineline_format::{Container, Element};

use crate::craft::{Zip, float_tensor, state_dict};
use crate::table::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [safetensors(), zips(), frames()].into_iter().flatten().collect()
}

/// A file of that header and so many bytes of values, read.
fn header(header: &str, n_data: usize) -> Result<(), String> {
    let bytes = [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &vec![0; n_data],
    ]
    .concat();
    read(&bytes)
}

fn read(file: &[u8]) -> Result<(), String> {
    let read = read_tensors(&file, Container::Safetensors, "m.safetensors");
    read.map(drop).map_err(|error| error.to_string())
}

fn members(n: usize, value: &str) -> String {
    let members: Vec<String> = (0..n).map(|i| format!("\"{i}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn safetensors() -> Vec<Case> {
    const ENTRY: &str = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let of = |name, expected, json: String, n| case("safetensors", name, expected, move || header(&json, n));
    let tensor = |fields: &str| format!("{{\"a\":{{{fields}}}}}");
    vec![
        case("safetensors", "empty file", "too few for a safetensors header", || {
            read(b"")
        }),
        case(
            "safetensors",
            "header as long as can be said",
            "claims 18446744073709551615",
            || read(&[u64::MAX.to_le_bytes(), *b"{}      "].concat()),
        ),
        case(
            "safetensors",
            "header one byte beyond the file",
            "claims 3 bytes of 10",
            || read(&[&3_u64.to_le_bytes()[..], b"{}"].concat()),
        ),
        case("safetensors", "header of no text", "header is wrong", || {
            read(&[&2_u64.to_le_bytes()[..], b"\xff\xfe"].concat())
        }),
        of("deep header", "header is wrong", "[".repeat(10 << 20), 0),
        of(
            "deep entry",
            "its entry has",
            tensor(&format!("\"dtype\":{}", "[".repeat(1 << 20) + &"]".repeat(1 << 20))),
            0,
        ),
        of(
            "deep short entry",
            "its entry is wrong",
            tensor(&format!("\"dtype\":{}{}", "[".repeat(500), "]".repeat(500))),
            0,
        ),
        case("safetensors", "10 MB of tensors", "more than 262144 members", || {
            header(&members(300_000, ENTRY), 1)
        }),
        case("safetensors", "10 MB of metadata", "more than 262144 members", || {
            header(&format!("{{\"__metadata__\":{}}}", members(700_000, "\"\"")), 0)
        }),
        of(
            "NaN in the metadata",
            "header is wrong",
            r#"{"__metadata__":{"loss":NaN}}"#.into(),
            0,
        ),
        of(
            "a number in the metadata",
            "no object of strings",
            r#"{"__metadata__":{"loss":1e999}}"#.into(),
            0,
        ),
        of(
            "one name twice",
            "`a` stands twice",
            format!("{{\"a\":{ENTRY},\"a\":{ENTRY}}}"),
            1,
        ),
        of(
            "one metadata key twice",
            "stands twice",
            r#"{"__metadata__":{"a":"","a":""}}"#.into(),
            0,
        ),
        of(
            "one field twice",
            "duplicate field `shape`",
            tensor(r#""dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]"#),
            1,
        ),
        of(
            "negative dimension",
            "integer `-1`",
            tensor(r#""dtype":"U8","shape":[-1],"data_offsets":[0,1]"#),
            1,
        ),
        of(
            "half a dimension",
            "floating point `1.5`",
            tensor(r#""dtype":"U8","shape":[1.5],"data_offsets":[0,1]"#),
            1,
        ),
        of(
            "dimensions that overflow",
            "size overflows",
            tensor(r#""dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,1]"#),
            1,
        ),
        of(
            "65 dimensions",
            "65 dimensions",
            tensor(&format!(
                "\"dtype\":\"U8\",\"shape\":{:?},\"data_offsets\":[0,1]",
                [1; 65]
            )),
            1,
        ),
        of(
            "offsets in the wrong order",
            "offsets say 1 to 0",
            tensor(r#""dtype":"U8","shape":[1],"data_offsets":[1,0]"#),
            1,
        ),
        of(
            "offsets beyond what can be counted",
            "overflow",
            tensor(r#""dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]"#),
            1,
        ),
        of(
            "two tensors at one place",
            "overlaps",
            format!("{{\"a\":{ENTRY},\"b\":{ENTRY}}}"),
            1,
        ),
        of(
            "a hole",
            "leaves a hole",
            tensor(r#""dtype":"U8","shape":[1],"data_offsets":[1,2]"#),
            2,
        ),
        of(
            "bytes behind the end",
            "1 bytes follow",
            tensor(&ENTRY[1..ENTRY.len() - 1]),
            2,
        ),
        of("cut short", "cut short", tensor(&ENTRY[1..ENTRY.len() - 1]), 0),
        of(
            "unknown dtype",
            "`F31` is unknown",
            tensor(r#""dtype":"F31","shape":[1],"data_offsets":[0,1]"#),
            1,
        ),
        of(
            "a name of 1 MB",
            "its name has 1000000 bytes",
            format!("{{\"{}\":{ENTRY}}}", "n".repeat(1_000_000)),
            1,
        ),
        of(
            "a name of control characters",
            "tensor `a\\u{0}\\n`: its name has a control character",
            format!("{{\"a\\u0000\\n\":{}}}", "[]"),
            0,
        ),
    ]
}

fn zip(edit: impl Fn(&mut Zip)) -> Result<(), String> {
    let pickle = state_dict(&[("w", float_tensor("0", 6, 0, &[6], &[1]))]);
    let mut zip = Zip::default();
    zip.entry("m/data.pkl", &pickle).entry("m/data/0", &[0; 24]);
    edit(&mut zip);
    read_zip(&zip.finish())
}

fn read_zip(file: &[u8]) -> Result<(), String> {
    let read = read_tensors(&file, Container::TorchZip, "m.bin");
    read.map(drop).map_err(|error| error.to_string())
}

fn zips() -> Vec<Case> {
    let of = |name, expected, edit: fn(&mut Zip)| case("zip", name, expected, move || zip(edit));
    vec![
        case("zip", "nothing but a magic", "directory is missing", || {
            read_zip(b"PK\x03\x04")
        }),
        case("zip", "cut short in the middle", "directory is missing", || {
            let mut zip = Zip::default();
            let file = zip.entry("m/data.pkl", &[0; 1000]).finish();
            read_zip(&file[..file.len() / 2])
        }),
        of("a bomb by ratio", "no PyTorch file", |zip| {
            zip.entry("m/data/1", &[0x78; 100]);
            zip.entries[2].method = 8;
        }),
        of("a bomb by overlap", "overlaps another", |zip| {
            for i in 0..60_000 {
                zip.entry(&format!("m/data/{}", i + 1), b"");
                let last = zip.entries.last_mut().expect("just added");
                (last.header_offset, last.size) = (Some(0), Some(24));
            }
        }),
        of("entries that share half", "overlaps another", |zip| {
            zip.entries[1].header_offset = Some(0);
        }),
        of("a size beyond the file", "ends outside", |zip| {
            zip.entries[1].size = Some(u32::MAX - 1);
        }),
        of("a place beyond the file", "lies outside", |zip| {
            zip.entries[1].header_offset = Some(u32::MAX - 1);
        }),
        of("an entry over the directory", "overlaps the directory", |zip| {
            zip.entries[1].size = Some(25);
        }),
        of("more entries said than there are", "another number of entries", |zip| {
            zip.n_entries = Some(u16::MAX);
        }),
        of(
            "fewer entries said than there are",
            "another number of entries",
            |zip| zip.n_entries = Some(1),
        ),
        of("one name twice", "`m/data/0` stands twice", |zip| {
            zip.entry("m/data/0", &[0; 24]);
        }),
        of("two pickles", "no PyTorch file", |zip| {
            zip.entry("n/data.pkl", b".");
        }),
        of("an encrypted entry", "no PyTorch file", |zip| zip.entries[0].flags = 1),
        of("the other byte order", "byte order is not little", |zip| {
            zip.entry("m/byteorder", b"big");
        }),
        case("zip", "a directory of 16 EB", "directory is larger", || {
            zip64_end_with(40..56)
        }),
        case("zip", "as many entries as can be said", "are the most", || {
            zip64_end_with(24..40)
        }),
    ]
}

/// Reads a zip64 whose end record says 0xff in these bytes of it.
fn zip64_end_with(ones: std::ops::Range<usize>) -> Result<(), String> {
    let mut zip = Zip {
        zip64: true,
        ..Zip::default()
    };
    let mut file = zip.entry("m/data.pkl", b".").finish();
    let end64 = file
        .windows(4)
        .position(|bytes| bytes == b"PK\x06\x06")
        .expect("a zip64 end");
    file[end64..][ones].fill(0xff);
    read_zip(&file)
}

fn frames() -> Vec<Case> {
    let of = |name, expected, frame: Vec<u8>| {
        case("frame", name, expected, move || {
            decode(&frame).map(drop).map_err(|error| error.to_string())
        })
    };
    let edited = |frame: Vec<u8>, at: usize, bytes: &[u8]| {
        let mut frame = frame;
        frame.splice(at..at + bytes.len(), bytes.iter().copied());
        frame
    };
    let zeros = || encode(&vec![0; 1 << 20], Element::Unknown);
    let floats = || {
        let values: Vec<u8> = (0..9000_u32)
            .flat_map(|i| ((i as f32).sin() * 0.02).to_le_bytes())
            .collect();
        encode(&values, Element::F32)
    };
    vec![
        of("empty", "no frame", Vec::new()),
        of("another magic", "no frame", b"FLF2\0\x01\0\0\x01\0\0\0x".to_vec()),
        of(
            "a codec of the future",
            "codec 3 is unknown",
            edited(encode_raw(b"x"), 4, &[3]),
        ),
        of(
            "an impossible width",
            "impossible fields",
            edited(encode_raw(b"x"), 5, &[3]),
        ),
        of(
            "4 GiB said",
            "holds 4294967295 bytes",
            edited(encode_raw(b"x"), 8, &[0xff; 4]),
        ),
        of("nothing said", "holds 0 bytes", edited(encode_raw(b"x"), 8, &[0; 4])),
        of(
            "a bomb by ratio",
            "does not decode",
            edited(zeros(), 8, &[100, 0, 0, 0]),
        ),
        of(
            "16 MiB said of 1 MiB",
            "not what its header says",
            edited(zeros(), 8, &[0, 0, 0, 1]),
        ),
        of(
            "16 MiB said of one byte",
            "not what its header says",
            edited(encode_raw(b"x"), 8, &[0, 0, 0, 1]),
        ),
        of(
            "two streams",
            "not exactly one zstd stream",
            [zeros(), zeros()[12..].to_vec()].concat(),
        ),
        of(
            "a plane beyond the frame",
            "a plane is cut short",
            edited(floats(), 13, &[0xff; 4]),
        ),
        of(
            "a plane of an unknown kind",
            "impossible encoding",
            edited(floats(), 12, &[9]),
        ),
        of(
            "bytes behind the last plane",
            "bytes follow its last plane",
            [floats(), vec![0]].concat(),
        ),
        of("planes of odd bytes", "no multiple", edited(floats(), 8, &[1])),
    ]
}
