//! A PyTorch file that is taken has its tensors inside of it, and reading them all is work in proportion to the file. The
//! first byte says what the rest is: a whole file, or the pickle of one that is honest otherwise.

#![no_main]

#[path = "../shared/cover.rs"]
mod cover;
#[expect(dead_code, reason = "made for the tests, which use all of it")]
#[path = "../../../registry/format/tests/it/craft.rs"]
mod craft;

use fineline_format::weights::{read_tensor, read_tensors, tensor_digest};
use fineline_format::{Container, TensorLayout};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "m.bin";

fuzz_target!(|bytes: &[u8]| {
    let Some((&form, rest)) = bytes.split_first() else {
        return;
    };
    let file = match form {
        b'p' => around(rest),
        _ => rest.to_vec(),
    };
    let size = file.len() as u64;
    match read_tensors(&file, Container::TorchZip, NAME) {
        Err(error) => cover::is_short(&error.to_string()),
        Ok(tensors) => {
            let mut total = 0;
            for tensor in &tensors {
                let (offset, size_bytes) = match &tensor.layout {
                    TensorLayout::Contiguous { offset, size_bytes } => (*offset, *size_bytes),
                    TensorLayout::Strided { offset, size_bytes, .. } => (*offset, *size_bytes),
                };
                assert!(offset + size_bytes <= size, "tensor `{}` leaves the file", tensor.name);
                let values = read_tensor(&file, tensor).expect("a tensor inside of the file can be read");
                assert_eq!(values.len() as u64, tensor.size_bytes());
                tensor_digest(&file, tensor, &|_, _| None).expect("what can be read can be hashed");
                total += size_bytes.max(tensor.size_bytes());
            }
            assert!(total <= 8 * size, "the tensors take {total} bytes of a file of {size}");
        }
    }
    cover::segments_cover(&file, NAME);
});

/// A file with that pickle and two storages.
fn around(pickle: &[u8]) -> Vec<u8> {
    let mut zip = craft::Zip::default();
    zip.entry("m/data.pkl", pickle)
        .entry("m/data/0", &[1; 24])
        .entry("m/data/1", &[2; 64]);
    zip.finish()
}
