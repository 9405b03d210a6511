//! A safetensors file that is taken is covered exactly by its header and its tensors, and so is what it is cut into.

#![no_main]

#[path = "../shared/cover.rs"]
mod cover;

use fineline_format::weights::{read_tensors, tensor_digest};
use fineline_format::{Container, TensorLayout};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "m.safetensors";

fuzz_target!(|bytes: &[u8]| {
    let source = bytes.to_vec();
    let tensors = match read_tensors(&source, Container::Safetensors, NAME) {
        Ok(tensors) => tensors,
        Err(error) => return cover::is_short(&error.to_string()),
    };
    let header = u64::from_le_bytes(source[..8].try_into().expect("the reader took eight bytes"));
    let mut at = 8 + header;
    for tensor in &tensors {
        let TensorLayout::Contiguous { offset, size_bytes } = tensor.layout else {
            panic!("a safetensors file has no views");
        };
        assert_eq!(offset, at, "tensor `{}` does not follow the one before it", tensor.name);
        assert_eq!(size_bytes, tensor.size_bytes());
        at += size_bytes;
        tensor_digest(&source, tensor, &|_, _| None).expect("a tensor inside of the file can be read");
    }
    assert_eq!(at, source.len() as u64);
    cover::segments_cover(&source, NAME);
});
