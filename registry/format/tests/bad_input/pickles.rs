//! Pickles inside of an honest zip.

use fineline_format::weights::{read_tensor, read_tensors};
use fineline_format::{Container, segments};

use crate::craft::{self, Zip, dict, float_tensor, global, int, state_dict, text, tuple};
use crate::table::{Case, case};

/// Reads a file with that pickle and a storage of 4 MB, cuts it, and reads every tensor.
fn read(pickle: &[u8]) -> Result<(), String> {
    let mut zip = Zip::default();
    let file = zip
        .entry("m/data.pkl", pickle)
        .entry("m/data/0", &vec![0; 4_000_000])
        .finish();
    segments(&file, "m.bin").map_err(|error| error.to_string())?;
    let tensors = read_tensors(&file, Container::TorchZip, "m.bin").map_err(|error| error.to_string())?;
    for tensor in &tensors {
        read_tensor(&file, tensor).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A tensor of 64 dimensions of one element, and as many strides.
fn wide(n_shape: usize, n_strides: usize) -> Vec<u8> {
    float_tensor("0", 1_000_000, 0, &vec![1; n_shape], &vec![1; n_strides])
}

/// Remembers `key` as 0 and `value` as 1, and makes a dict of both, `n` times.
fn recalled(key: &str, value: &[u8], n: usize) -> Vec<u8> {
    let made = [&text(key)[..], b"q\x00", value, b"q\x01}("].concat();
    craft::pickle(&[&made[..], &b"h\x00h\x01".repeat(n), b"u"].concat())
}

/// As many names of one tensor that spans its whole storage and has two elements.
fn far_apart(n: usize) -> Vec<u8> {
    let mut items = [&float_tensor("0", 1_000_000, 0, &[2, 1], &[999_999, 1])[..], b"q\x00}("].concat();
    for i in 0..n {
        items.extend(text(&i.to_string()));
        items.extend(b"h\x00");
    }
    items.extend(b"u");
    craft::pickle(&items)
}

pub(crate) fn cases() -> Vec<Case> {
    let of = |name, expected, pickle: fn() -> Vec<u8>| case("pickle", name, expected, move || read(&pickle()));
    let call = |name: &'static str, args: Vec<Vec<u8>>| [global(name), tuple(&args), b"R".to_vec()].concat();
    let one = |name, expected, tensor: Vec<u8>| {
        case("pickle", name, expected, move || {
            read(&state_dict(&[("w", tensor.clone())]))
        })
    };
    let float = |numel, first, shape: &[i64], strides: &[i64]| float_tensor("0", numel, first, shape, strides);
    const N: i64 = 1_000_000;
    vec![
        of("empty", "cut short", Vec::new),
        of("a text of 4 GiB said", "cut short", || {
            b"\x80\x02X\xff\xff\xff\xffa.".to_vec()
        }),
        of("a text that is none", "no UTF-8", || {
            b"\x80\x02X\x01\0\0\0\xff.".to_vec()
        }),
        of("an operation that no state dict needs", "operation 0x69", || {
            b"\x80\x02i.".to_vec()
        }),
        of("more taken than there is", "takes more than it has", || {
            b"\x80\x02\x85.".to_vec()
        }),
        of("a list that never began", "did not begin", || b"\x80\x02t.".to_vec()),
        of("a recall of nothing", "never remembered", || b"\x80\x02h\x00.".to_vec()),
        of("a number beyond 64 bits", "beyond 64 bits", || {
            b"\x80\x02\x8a\x09123456789.".to_vec()
        }),
        of("no dict", "no dict of tensors", || craft::pickle(&int(1))),
        one(
            "a system call",
            "`posix.system`",
            call("posix system", vec![text("id")]),
        ),
        one(
            "an import by getattr",
            "`builtins.getattr`",
            call("builtins getattr", vec![text("os"), text("x")]),
        ),
        one("no tensor", "is no tensor", int(7)),
        one(
            "a storage that is not there",
            "`data/9` is not in the zip",
            float_tensor("9", N, 0, &[1], &[1]),
        ),
        one(
            "a storage of another size",
            "should have 4000004",
            float(N + 1, 0, &[1], &[1]),
        ),
        one(
            "a size beyond what can be counted",
            "overflows",
            float(N, 0, &[i64::MAX, 3], &[0, 0]),
        ),
        one("an offset outside", "reaches outside", float(N, N, &[1], &[1])),
        one("strides outside", "reaches outside", float(N, 0, &[2], &[i64::MAX])),
        one("a negative stride", "negative size", float(N, 0, &[2], &[-1])),
        one("65 dimensions", "65 dimensions", float(N, 0, &[1; 65], &[1; 65])),
        one(
            "nothing repeated without end",
            "share storages",
            float(N, 0, &[1 << 40], &[0]),
        ),
        of("deep nesting", "no dict of tensors", || {
            craft::pickle(&[b"}".to_vec(), vec![0x85; 4_000_000]].concat())
        }),
        of("values without end", "more than 4194304 values", || {
            craft::pickle(&vec![b'N'; 5_000_000])
        }),
        of("one tensor recalled a million times", "are the most", || {
            recalled("w", &wide(64, 64), 1_000_000)
        }),
        of("one long name recalled a million times", "are the most", || {
            recalled(&"n".repeat(1000), &wide(1, 1), 1_000_000)
        }),
        of("one name recalled twice", "`w` stands twice", || {
            recalled("w", &wide(1, 1), 2)
        }),
        of("a name with a control character", "has a control character", || {
            recalled("w\0", &wide(1, 1), 1)
        }),
        of("a name of 1 MB", "1024 are the most", || {
            recalled(&"n".repeat(1 << 20), &wide(1, 1), 1)
        }),
        of("strides made a million times", "more than 4194304 values", || {
            let args = craft::tensor_args("FloatStorage", "0", N, 0, &[], &[1; 64]);
            let made = [
                global("torch._utils _rebuild_tensor_v2"),
                b"q\x00".to_vec(),
                tuple(&args),
                b"q\x01".to_vec(),
            ];
            craft::pickle(&[made.concat(), b"h\x00h\x01R".repeat(1_000_000)].concat())
        }),
        of("small tensors of one large storage", "share storages", || {
            far_apart(10_000)
        }),
        case("pickle", "the form from before 2020", "legacy form", || {
            let file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
            let read = read_tensors(&file, Container::Other, "pytorch_model.bin");
            read.map(drop).map_err(|error| error.to_string())
        }),
        of("a dict in a dict in a dict", "is no tensor", || {
            craft::pickle(&dict(&[("model", dict(&[("w", dict(&[]))]))]))
        }),
    ]
}
