//! Chunks of a run, framed as `fineline_format::frame` has it, and where their frames can be had and put without the
//! registry between.

use bytes::Bytes;
use fineline_api::chunk::FRAME_MEDIA_TYPE;
use fineline_api::{
    ChunkLocations, LocateChunks, MissingChunks, MissingChunksQuery, RunName, StageFrames, StagingPlaces, path,
};
use fineline_format::Digest;
use uuid::Uuid;

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Which of these chunks (at most 10,000) have to be sent, in the order asked.
    ///
    /// # Errors
    /// As every call.
    pub async fn missing_chunks(&self, run: &RunName, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        let call = Call::post_repeatable(path::run(run, "/chunks/missing")).json(&MissingChunksQuery { digests });
        let answer: MissingChunks = self.json(call).await?;
        Ok(answer.missing)
    }

    /// Sends a chunk's frame within a push session.
    ///
    /// # Errors
    /// [`crate::Error::DigestMismatch`] when the frame's content does not have that digest.
    pub async fn put_chunk(&self, run: &RunName, digest: Digest, session: Uuid, frame: Bytes) -> Result<()> {
        let call = Call::put(chunk_path(run, digest)).query("session", Some(session));
        self.done(call.bytes(FRAME_MEDIA_TYPE, frame)).await
    }

    /// Has the registry take a chunk in whose frame was put at a staging place of the session.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when the place is not the session's, [`crate::Error::Refused`] when nothing was put there,
    /// and as [`Client::put_chunk`].
    pub async fn put_staged_chunk(&self, run: &RunName, digest: Digest, session: Uuid, staged: Uuid) -> Result<()> {
        let call = Call::put(chunk_path(run, digest)).query("session", Some(session));
        self.done(call.query("staged", Some(staged))).await
    }

    /// Staging places of a push session, at most 100: presigned URLs to put frames at. Whoever has one can write there, so
    /// it belongs in no log.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when the session is no longer open.
    pub async fn stage_frames(&self, run: &RunName, session: Uuid, n: u64) -> Result<StagingPlaces> {
        let path = path::run(run, &format!("/push-sessions/{session}/staging"));
        self.json(Call::post_repeatable(path).json(&StageFrames { n })).await
    }

    /// Where the frames of these chunks (at most 1,000) can be read: presigned URLs, which belong in no log.
    ///
    /// # Errors
    /// As every call.
    pub async fn locate_chunks(&self, run: &RunName, digests: Vec<Digest>) -> Result<ChunkLocations> {
        let call = Call::post_repeatable(path::run(run, "/chunks/locations"));
        self.json(call.json(&LocateChunks { digests })).await
    }

    /// A chunk's frame, as it is stored: decode it, and compare its digest. With `verify` the registry does so first, and
    /// knows of the damage from then on; ask so when what came is not the chunk.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when no checkpoint that the token reads holds it.
    pub async fn get_chunk(&self, run: &RunName, digest: Digest, verify: bool) -> Result<Bytes> {
        let call = Call::get(chunk_path(run, digest)).query("verify", verify.then_some(true));
        Ok(self.send(&call).await?.body)
    }
}

fn chunk_path(run: &RunName, digest: Digest) -> String {
    path::run(run, &format!("/chunks/{}", path::segment(digest)))
}
