//! The whole layout of the bucket: `frames/<last two digits of the id>/<id>`.

use object_store::path::Path;
use uuid::Uuid;

/// Where the frame with that id lies. An id is never used twice, so two encodings of a chunk never meet; the folder is
/// by the id's random end, since its beginning is the time.
pub(crate) fn frame(id: Uuid) -> Path {
    let id = id.simple().to_string();
    Path::from(format!("frames/{}/{id}", &id[30..]))
}
