//! What is stored, and what happens when it is damaged.

use bytes::Bytes;
use fineline_api::{ChunkRef, PushSessionState};
use fineline_format::{Digest, ReadAt, frame};
use futures::TryStreamExt;
use uuid::Uuid;

use super::fixture::{Fixture, described, file, model};
use crate::db;
use crate::db::frame::Attached;
use crate::service::chunk;
use crate::service::content::{ReadError, adopt, put_content, read_content, read_range};
use crate::service::stored_file::StoredFile;

fn noise(n: u32) -> Bytes {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(next).collect::<Vec<u8>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_stored_content_reads_as_it_was_put() {
    let fixture = Fixture::new().await;
    let bytes = noise(9_000_000);
    let stored = put_content(&fixture.app, bytes.clone()).await.unwrap();
    let digest = stored.digest;
    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    adopt(&txn, &stored).await.unwrap();
    txn.commit().await.unwrap();

    assert_eq!(read_content(&fixture.app, &digest).await.unwrap(), bytes);
    let row = db::file::find(fixture.app.db.reader(), &digest).await.unwrap().unwrap();
    assert!(row.chunks.len() > 1);
    let cut = row.chunks[0].size_bytes;
    for range in [0..1, cut - 1..cut + 1, cut..cut, 5..8_999_999, 8_999_999..9_000_000] {
        let parts: Vec<Bytes> = read_range(&fixture.app, &row.chunks, range.clone())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            parts.concat(),
            bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    let stored = StoredFile::new(&fixture.app, &row.chunks);
    let read = move || {
        let mut part = vec![0; 1000];
        stored.read_exact_at(cut - 500, &mut part).unwrap();
        let beyond = stored.read_exact_at(8_999_500, &mut [0; 1000]);
        assert_eq!(beyond.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        part
    };
    let part = tokio::task::spawn_blocking(read).await.unwrap();
    assert_eq!(part, bytes[cut as usize - 500..cut as usize + 500]);
}

/// Puts other bytes where a chunk's frame lies.
async fn damage(fixture: &Fixture, digest: Digest) {
    let row = db::frame::find_chunk(fixture.app.db.reader(), &digest)
        .await
        .unwrap()
        .unwrap();
    let frame = Bytes::from(frame::encode_raw(&vec![9; row.size_bytes as usize]));
    fixture.app.store.put_frame(row.frame_id, frame).await.unwrap();
}

#[tokio::test]
async fn damaged_bytes_are_never_handed_out_and_fsck_names_them() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();
    let chunk = described(&model(1.0))[2].chunks[0];
    damage(&fixture, chunk.digest).await;

    let read: Result<Vec<Bytes>, _> = read_range(&fixture.app, &[chunk], 0..2).try_collect().await;

    assert!(matches!(read, Err(ReadError::Damaged(_))), "{read:?}");
    let problems = fixture.problems().await;
    assert_eq!(problems[0].digest, Some(chunk.digest));
    assert_eq!(problems[0].checkpoints, ["lab/run@1"]);
}

#[tokio::test]
async fn a_push_whose_stored_bytes_are_damaged_fails_and_says_so() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = [file("a.txt", "bytes")];
    let session = pusher.open(1).await;
    pusher.send(session.id, &files).await.unwrap();
    damage(&fixture, Digest::of(b"bytes")).await;

    let session = pusher.commit(session.id, described(&files)).await.unwrap();

    assert_eq!(session.state, PushSessionState::Failed);
    let failure = session.failure.unwrap();
    assert!(failure.message.contains("`a.txt`"), "{failure:?}");
    assert!(failure.details.unwrap().hint.unwrap().contains("scrub"));
}

#[tokio::test]
async fn a_live_frame_is_never_discarded_and_a_lost_one_leaves_nothing() {
    let fixture = Fixture::new().await;
    let raw = b"kept".as_slice();
    let digest = Digest::of(raw);
    let piece = ChunkRef { digest, size_bytes: 4 };
    chunk::keep(&fixture.app, piece, frame::encode_raw(raw).into())
        .await
        .unwrap();
    let live = db::frame::find_chunk(fixture.app.db.reader(), &digest)
        .await
        .unwrap()
        .unwrap();
    let lost = Uuid::now_v7();
    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    db::frame::intend(&txn, lost, &digest, 10).await.unwrap();
    assert_eq!(
        db::frame::attach(&txn, Some(lost), &digest, 4).await.unwrap(),
        Attached::Held,
        "one frame of a chunk is live"
    );
    txn.commit().await.unwrap();
    fixture
        .app
        .store
        .put_frame(lost, frame::encode_raw(raw).into())
        .await
        .unwrap();

    for id in [live.frame_id, lost] {
        chunk::discard(&fixture.app, id).await.unwrap();
    }

    let size = async |id| fixture.app.store.frame_size(id).await.unwrap();
    assert!(size(live.frame_id).await.is_some() && size(lost).await.is_none());
    fixture.assert_sound().await;
}
