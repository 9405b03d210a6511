//! What the targets of both containers assert.

use fineline_format::{PIECE_BYTES, Segment, segments};

/// What a file is cut into covers it exactly and in order.
pub fn segments_cover(file: &Vec<u8>, name: &str) {
    let Ok((_, segments)) = segments(file, name) else {
        return;
    };
    let mut at = 0;
    for segment in segments {
        let (begin, size) = match segment {
            Segment::Fixed { offset, size_bytes, .. } => {
                assert!((1..=PIECE_BYTES).contains(&size_bytes));
                (offset, size_bytes)
            }
            Segment::Cdc { offset, size_bytes } => (offset, size_bytes),
        };
        assert_eq!(begin, at, "the segments leave a hole or overlap");
        at += size;
    }
    assert_eq!(at, file.len() as u64);
}

/// A refusal can stand in a log, whatever the input was.
pub fn is_short(message: &str) {
    assert!(
        message.len() < 4000 && !message.contains(char::is_control),
        "{message:?}"
    );
}
