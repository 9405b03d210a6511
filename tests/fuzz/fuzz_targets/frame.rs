//! A frame that is taken holds exactly what it says, and every chunk survives every encoding.

#![no_main]

use fineline_format::frame::{decode, encode, encode_raw, read_header};
use fineline_format::{Element, MAX_CHUNK_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(raw) = decode(bytes) {
        let header = read_header(bytes).expect("what decodes has a header");
        assert_eq!(raw.len() as u64, header.raw_size_bytes);
        assert!((1..=MAX_CHUNK_BYTES).contains(&raw.len()));
        survives(&raw);
    }
    if !bytes.is_empty() {
        survives(bytes);
    }
});

fn survives(raw: &[u8]) {
    // A large chunk of few bytes on the wire is decoded often and encoded seldom.
    if raw.len() > 64 << 10 {
        return;
    }
    for element in [Element::Unknown, Element::Bf16, Element::F16, Element::F32] {
        let frame = encode(raw, element);
        assert!(frame.len() <= encode_raw(raw).len());
        assert_eq!(decode(&frame).as_deref(), Ok(raw));
    }
}
