//! The reader of a zip's central directory, as far as PyTorch's files need it, zip64 included.
//!
//! **Invariant:** every entry that is given lies inside of the file, and no two of them overlap or have one name. The file
//! is read once from its front to its back, whatever order the directory has: a stored file is decoded chunk by chunk.

use std::collections::HashSet;
use std::io;

use crate::FormatError;
use crate::source::{ReadAt, read_vec};

/// What every local header begins with.
pub(crate) const LOCAL_MAGIC: [u8; 4] = *b"PK\x03\x04";

const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
const END64_MAGIC: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64_MAGIC: [u8; 4] = *b"PK\x06\x07";

const END_BYTES: usize = 22;
const LOCATOR64_BYTES: usize = 20;
const MAX_COMMENT_BYTES: usize = 65_535;
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
const LOCAL_BYTES: usize = 30;

/// The most entries: more than the tensors that a file may have.
const MAX_ENTRIES: usize = 1 << 18;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
    /// Its bytes in the file.
    pub(crate) size_bytes: u64,
    /// Whether they are the content itself: neither compressed nor encrypted.
    pub(crate) is_stored: bool,
}

/// What the directory says of an entry.
struct Listed<'a> {
    name: &'a str,
    /// Where its local header begins.
    header: u64,
    packed_bytes: u64,
    is_stored: bool,
}

struct Directory {
    offset: u64,
    size_bytes: u64,
    n_entries: u64,
}

/// The entries in the order in which they lie.
///
/// # Errors
/// [`FormatError::Container`] when the file is cut short or lies about itself.
pub(crate) fn read(source: &dyn ReadAt, file: &str) -> Result<Vec<Entry>, FormatError> {
    let refused = |what: &str| FormatError::container(file, what);
    let directory = find_directory(source, file)?;
    if directory.size_bytes > MAX_DIRECTORY_BYTES {
        return Err(refused("its zip directory is larger than 64 MiB"));
    }
    let size = usize::try_from(directory.size_bytes).expect("bounded above");
    let bytes = read_vec(source, directory.offset, size).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("its zip directory lies outside of it: it is cut short"),
        _ => FormatError::io(file)(error),
    })?;
    let mut listed = list(file, &bytes, directory.n_entries)?;
    listed.sort_by_key(|entry| (entry.header, entry.packed_bytes));
    let mut names = HashSet::new();
    let mut entries = Vec::with_capacity(listed.len());
    let mut at = 0;
    for entry in listed {
        let name = entry.name;
        if !names.insert(name) {
            return Err(refused(&format!("zip entry `{name}` stands twice")));
        }
        if entry.header < at {
            return Err(refused(&format!("zip entry `{name}` overlaps another")));
        }
        let entry = place(source, file, &entry)?;
        at = entry.offset + entry.size_bytes;
        entries.push(entry);
    }
    if at > directory.offset {
        return Err(refused("a zip entry overlaps the directory"));
    }
    Ok(entries)
}

/// What the directory lists, in its own order.
fn list<'a>(file: &str, bytes: &'a [u8], n_entries: u64) -> Result<Vec<Listed<'a>>, FormatError> {
    if n_entries > MAX_ENTRIES as u64 {
        let what = format!("its zip directory says {n_entries} entries, {MAX_ENTRIES} are the most");
        return Err(FormatError::container(file, what));
    }
    let (mut rest, mut listed) = (bytes, Vec::new());
    while !rest.is_empty() && listed.len() as u64 <= n_entries {
        let (entry, after) = central_entry(file, rest)?;
        rest = after;
        listed.push(entry);
    }
    if listed.len() as u64 != n_entries {
        let what = "its zip directory holds another number of entries than it says";
        return Err(FormatError::container(file, what));
    }
    Ok(listed)
}

/// Where an entry's bytes lie, by its local header.
fn place(source: &dyn ReadAt, file: &str, listed: &Listed<'_>) -> Result<Entry, FormatError> {
    let refused = |what: &str| FormatError::container(file, format!("zip entry `{}` {what}", listed.name));
    let local = read_vec(source, listed.header, LOCAL_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("lies outside of it"),
        _ => FormatError::io(file)(error),
    })?;
    if local[..4] != LOCAL_MAGIC {
        return Err(refused("has no header where the directory says"));
    }
    let offset = listed.header + LOCAL_BYTES as u64 + u16_at(&local, 26) + u16_at(&local, 28);
    match offset.checked_add(listed.packed_bytes) {
        Some(end) if end <= source.size_bytes() => Ok(Entry {
            name: listed.name.to_owned(),
            offset,
            size_bytes: listed.packed_bytes,
            is_stored: listed.is_stored,
        }),
        _ => Err(refused("ends outside of it: it is cut short")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Finds the end record, and by it (or its zip64 form) the directory.
fn find_directory(source: &dyn ReadAt, file: &str) -> Result<Directory, FormatError> {
    let cut_short = || FormatError::container(file, "its zip directory is missing: it is cut short");
    let size = source.size_bytes();
    let tail_size = size.min((END_BYTES + MAX_COMMENT_BYTES + LOCATOR64_BYTES) as u64);
    let tail_offset = size - tail_size;
    let tail = read_vec(source, tail_offset, usize::try_from(tail_size).expect("under 70 KB"))
        .map_err(FormatError::io(file))?;
    let ends_there = |at: usize| tail[at..at + 4] == END_MAGIC && at as u64 + 22 + u16_at(&tail, at + 20) == tail_size;
    let last = tail.len().checked_sub(END_BYTES).ok_or_else(cut_short)?;
    let end = (0..=last).rev().find(|&at| ends_there(at)).ok_or_else(cut_short)?;
    let plain = Directory {
        n_entries: u16_at(&tail, end + 10),
        size_bytes: u32_at(&tail, end + 12),
        offset: u32_at(&tail, end + 16),
    };
    let locator = end
        .checked_sub(LOCATOR64_BYTES)
        .filter(|&at| tail[at..at + 4] == LOCATOR64_MAGIC);
    let Some(locator) = locator else { return Ok(plain) };
    let end64 = read_vec(source, u64_at(&tail, locator + 8), 56).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_short(),
        _ => FormatError::io(file)(error),
    })?;
    if end64[..4] != END64_MAGIC {
        return Err(cut_short());
    }
    Ok(Directory {
        n_entries: u64_at(&end64, 32),
        size_bytes: u64_at(&end64, 40),
        offset: u64_at(&end64, 48),
    })
}

/// The entry at the beginning of `bytes`, and what follows it.
fn central_entry<'a>(file: &str, bytes: &'a [u8]) -> Result<(Listed<'a>, &'a [u8]), FormatError> {
    let refused = |what: String| FormatError::container(file, what);
    let damaged = || FormatError::container(file, "its zip directory is damaged");
    if bytes.len() < 46 || bytes[..4] != CENTRAL_MAGIC {
        return Err(damaged());
    }
    let [name_size, extra_size, comment_size] = [28, 30, 32].map(|at| usize::try_from(u16_at(bytes, at)).unwrap_or(0));
    let extra_at = 46 + name_size;
    let end = extra_at + extra_size + comment_size;
    let name = bytes.get(46..extra_at).ok_or_else(damaged)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged())?;
    let extra = bytes.get(extra_at..extra_at + extra_size).ok_or_else(damaged)?;
    let rest = bytes.get(end..).ok_or_else(damaged)?;
    let mut fields = [u32_at(bytes, 24), u32_at(bytes, 20), u32_at(bytes, 42)];
    widen(&mut fields, extra).ok_or_else(damaged)?;
    let [size_bytes, packed_bytes, header] = fields;
    let is_encrypted = u16_at(bytes, 8) & 1 != 0;
    let is_stored = u16_at(bytes, 10) == 0 && !is_encrypted;
    if is_stored && size_bytes != packed_bytes {
        return Err(refused(format!(
            "zip entry `{name}` is stored in {packed_bytes} bytes and says that it has {size_bytes}"
        )));
    }
    let listed = Listed {
        name,
        header,
        packed_bytes,
        is_stored,
    };
    Ok((listed, rest))
}

/// Takes the 64-bit values of those fields that are all ones, in their order, from the zip64 extra field.
fn widen(fields: &mut [u64; 3], mut extra: &[u8]) -> Option<()> {
    if fields.iter().all(|&field| field != u64::from(u32::MAX)) {
        return Some(());
    }
    while extra.len() >= 4 {
        let size = usize::try_from(u16_at(extra, 2)).ok()?;
        let mut body = extra.get(4..4 + size)?;
        if u16_at(extra, 0) == 1 {
            for field in fields.iter_mut().filter(|field| **field == u64::from(u32::MAX)) {
                *field = u64_at(body.get(..8)?, 0);
                body = &body[8..];
            }
            return Some(());
        }
        extra = &extra[4 + size..];
    }
    None
}
