//! The whole layout of the bucket: `frames/<last two digits of the id>/<id>`, `staging/<id>` for what clients put by
//! themselves, and `probe/<id>` for a moment at the start of a server.

use object_store::path::Path;
use uuid::Uuid;

/// Where the frame with that id lies. An id is never used twice, so two encodings of a chunk never meet; the folder is
/// by the id's random end, since its beginning is the time.
pub(crate) fn frame(id: Uuid) -> Path {
    let id = id.simple().to_string();
    Path::from(format!("frames/{}/{id}", &id[30..]))
}

/// Where a client puts a frame before it is verified.
pub(crate) fn staging(id: Uuid) -> Path {
    Path::from(format!("staging/{}", id.simple()))
}

/// Where a server tries whether it may write, read and delete.
pub(crate) fn probe(id: Uuid) -> Path {
    Path::from(format!("probe/{}", id.simple()))
}
