//! The header `Range` of a request for one file, as far as it is served: one part of the bytes.
//!
//! **Invariant:** a part that is given lies inside of the file and is not empty.

use std::ops::Range;

/// What a request asks of a file's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// One part.
    Part(Range<u64>),
    /// Nothing that we serve in parts: the whole file is an answer too (RFC 9110, 14.2).
    Ignored,
    /// A part that the file has not.
    Outside,
}

/// Reads `bytes=a-b`, `bytes=a-` or `bytes=-n` of a file of `size` bytes.
pub fn parse_range(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-')) else {
        return Asked::Ignored;
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Asked::Ignored;
    }
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(n)) if first.is_empty() => size.saturating_sub(n)..size,
        _ => return Asked::Ignored,
    };
    if range.start < range.end {
        Asked::Part(range)
    } else {
        Asked::Outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=5-99", Asked::Part(5..10)),
            ("bytes=10-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::Ignored),
            ("bytes=0-1,3-4", Asked::Ignored),
            ("lines=0-1", Asked::Ignored),
            ("bytes=+1-+2", Asked::Ignored),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Outside);
    }
}
