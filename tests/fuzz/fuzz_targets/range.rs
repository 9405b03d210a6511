//! A range that is taken lies inside of the file, is what its text says, and an outside one has nothing of the file. The
//! first eight bytes are the file's size.

#![no_main]

use fineline_api::range::{Asked, parse_range};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, text)) = bytes.split_first_chunk() else {
        return;
    };
    let size = u64::from_le_bytes(*size);
    let Ok(text) = std::str::from_utf8(text) else { return };
    match parse_range(text, size) {
        Asked::Part(part) => {
            assert!(part.start < part.end && part.end <= size);
            let again = format!("bytes={}-{}", part.start, part.end - 1);
            assert_eq!(parse_range(&again, size), Asked::Part(part));
        }
        Asked::Outside => assert!(text.starts_with("bytes=")),
        Asked::Ignored => {}
    }
});
