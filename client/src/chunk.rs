//! Chunks of a run, framed as `fineline_format::frame` has it.

use bytes::Bytes;
use fineline_api::chunk::FRAME_MEDIA_TYPE;
use fineline_api::{MissingChunks, MissingChunksQuery, RunName, path};
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
