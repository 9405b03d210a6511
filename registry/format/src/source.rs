//! Random access to a file's bytes, which callers implement for what they have: a file, or stored chunks.

use std::io;

/// Bytes that can be read at any offset.
pub trait ReadAt {
    /// How many there are.
    fn size_bytes(&self) -> u64;

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the bytes end before `buf` is full, or what the medium gives.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = begin.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(begin..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.as_slice().size_bytes()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(offset, buf)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

/// `size_bytes` bytes from `offset` on; the caller has bounded the size.
pub(crate) fn read_vec(source: &dyn ReadAt, offset: u64, size_bytes: usize) -> io::Result<Vec<u8>> {
    let end = offset
        .checked_add(size_bytes as u64)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if end > source.size_bytes() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut buf = vec![0; size_bytes];
    source.read_exact_at(offset, &mut buf)?;
    Ok(buf)
}
