//! Objects as the format readers take files.

use std::collections::HashMap;
use std::sync::Arc;

use fineline_api::SourceLocation;
use fineline_format::ReadAt;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::super::{Origin, RemoteFile};
use super::*;

/// A file of so many bytes in a folder.
async fn file(size: usize) -> (TempDir, Vec<u8>, RemoteFile) {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 253) as u8).collect();
    std::fs::write(dir.path().join("model.bin"), &bytes).unwrap();
    let reach = Reach {
        roots: vec![dir.path().to_owned()],
        allowed: Vec::new(),
    };
    let location = SourceLocation::Folder {
        path: dir.path().to_str().unwrap().to_owned(),
    };
    let origin = Origin::open(&location, None, &reach).unwrap();
    let places = origin.list_all(&HashMap::new()).await.unwrap();
    let object = object(&places[0], "model.bin").clone();
    (dir, bytes, RemoteFile::new(Arc::new(origin), object, Handle::current()))
}

/// Reads each range, held against the bytes.
async fn read(bytes: Vec<u8>, remote: RemoteFile, ranges: Vec<std::ops::Range<usize>>) -> RemoteFile {
    let read = move || {
        for range in ranges {
            let mut buf = vec![0; range.len()];
            remote.read_exact_at(range.start as u64, &mut buf).unwrap();
            assert_eq!(buf, bytes[range]);
        }
        remote
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn beginning_and_end_are_read_once_each() {
    let size = 5 << 20;
    let (_dir, bytes, remote) = file(size).await;
    let mut ranges = vec![0..8, 8..70_000, size - 22..size, size - 70_000..size - 5, 3..9];
    let remote = read(bytes.clone(), remote, ranges.clone()).await;
    assert_eq!(remote.n_read(), (2 << 20, 2));

    // Small ones in the middle that lie beside each other, and a large one as it is.
    let middle = 2 << 20;
    ranges = (0..100).map(|i| middle + i * 100..middle + i * 100 + 30).collect();
    ranges.push(middle..middle + 100_000);
    let remote = read(bytes, remote, ranges).await;
    assert_eq!(remote.n_read(), ((2 << 20) + (16 << 10) + 100_000, 4));
}

#[tokio::test]
async fn a_small_file_is_read_once_and_its_end_is_told() {
    let (_dir, bytes, remote) = file(1_500_000).await;
    let remote = read(
        bytes,
        remote,
        vec![0..10, 1_400_000..1_500_000, 1_000_000..1_100_000, 5..5],
    )
    .await;
    assert_eq!(remote.n_read(), (1_500_000, 1));
    let mut buf = [0; 2];
    for offset in [1_499_999, 1_500_000, u64::MAX] {
        let error = remote.read_exact_at(offset, &mut buf).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn what_stopped_the_source_is_told_through_a_reader() {
    let (dir, _, remote) = file(100).await;
    std::fs::write(dir.path().join("model.bin"), "other").unwrap();
    let read = move || remote.read_exact_at(0, &mut [0; 4]).unwrap_err();
    let error = tokio::task::spawn_blocking(read).await.unwrap();
    assert!(
        matches!(RemoteFile::source_error(&error), Some(SourceError::Changed(_))),
        "{error:?}"
    );
}
