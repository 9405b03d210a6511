//! The statements of collection: what runs let go of, which frames nothing needs, and forgetting both.
//!
//! **Invariant:** a chunk is needed by a possession that is not released and by a kept file, and by nothing else. Each
//! statement here tests that by itself, so what was revived in the meantime stays whatever was planned.

use fineline_format::Digest;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Value};
use uuid::Uuid;

use super::{execute, statement};

fn bytes(digest: Option<&Digest>) -> Value {
    digest.map(super::blob).unwrap_or_default().into()
}

/// `$first, …` for so many values.
fn places(first: usize, n: usize) -> String {
    (first..first + n)
        .map(|at| format!("${at}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Begins a mark: gives the time, which [`super::possession::insert`] compares with from now on.
pub(crate) async fn begin_mark(conn: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let now = super::now_ms(conn).await?;
    // The latest, also of two whose clock was put back in between.
    let sql = "INSERT INTO mark (id, begun_at_ms) VALUES (1, $1) ON CONFLICT (id) \
        DO UPDATE SET begun_at_ms = excluded.begun_at_ms WHERE mark.begun_at_ms < excluded.begun_at_ms";
    execute(conn, sql, vec![now.into()]).await?;
    Ok(now)
}

/// A digest that a run possesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Possessed {
    pub(crate) digest: Digest,
    pub(crate) put_at_ms: i64,
    pub(crate) released: bool,
}

/// What a run possesses by digest, behind `after`.
pub(crate) async fn possessed(
    conn: &impl ConnectionTrait,
    run_id: i64,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Vec<Possessed>, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        digest: Vec<u8>,
        put_at_ms: i64,
        released_at_ms: Option<i64>,
    }
    let sql = "SELECT digest, put_at_ms, released_at_ms FROM possession \
        WHERE run_id = $1 AND digest > $2 ORDER BY digest LIMIT $3";
    let values = vec![run_id.into(), bytes(after), super::signed(limit).into()];
    let rows = Row::find_by_statement(statement(conn, sql, values)).all(conn).await?;
    let describe = |row: Row| {
        Ok(Possessed {
            digest: super::digest(&row.digest)?,
            put_at_ms: row.put_at_ms,
            released: row.released_at_ms.is_some(),
        })
    };
    rows.into_iter().map(describe).collect()
}

/// Lets a run go of digests, but for those that were put or named since `before_ms`; gives how many.
pub(crate) async fn release(
    conn: &impl ConnectionTrait,
    run_id: i64,
    digests: &[Digest],
    before_ms: i64,
) -> Result<u64, DbErr> {
    let now = super::now_ms(conn).await?;
    let mut released = 0;
    for batch in digests.chunks(super::BATCH) {
        let sql = format!(
            "UPDATE possession SET released_at_ms = {now} \
             WHERE run_id = $1 AND put_at_ms < $2 AND released_at_ms IS NULL AND digest IN ({})",
            places(3, batch.len())
        );
        let mut values: Vec<Value> = vec![run_id.into(), before_ms.into()];
        values.extend(batch.iter().map(|digest| Value::from(super::blob(digest))));
        released += execute(conn, &sql, values).await?;
    }
    Ok(released)
}

/// Takes back that a run let go of digests which it holds.
pub(crate) async fn take_back(conn: &impl ConnectionTrait, run_id: i64, digests: &[Digest]) -> Result<(), DbErr> {
    for batch in digests.chunks(super::BATCH) {
        let sql = format!(
            "UPDATE possession SET released_at_ms = NULL \
             WHERE run_id = $1 AND released_at_ms IS NOT NULL AND digest IN ({})",
            places(2, batch.len())
        );
        let mut values: Vec<Value> = vec![run_id.into()];
        values.extend(batch.iter().map(|digest| Value::from(super::blob(digest))));
        execute(conn, &sql, values).await?;
    }
    Ok(())
}

/// Ends what runs let go of before `before_ms`, at most `limit`; gives how many.
pub(crate) async fn forget_released(conn: &impl ConnectionTrait, before_ms: i64, limit: u64) -> Result<u64, DbErr> {
    let sql = "DELETE FROM possession WHERE released_at_ms < $1 AND (digest, run_id) IN \
        (SELECT digest, run_id FROM possession WHERE released_at_ms < $1 LIMIT $2)";
    execute(conn, sql, vec![before_ms.into(), super::signed(limit).into()]).await
}

/// Whether anything needs the chunk `c`.
const NEEDED: &str = "(EXISTS (SELECT 1 FROM possession p WHERE p.digest = c.digest AND p.released_at_ms IS NULL) \
    OR EXISTS (SELECT 1 FROM kept_chunk k WHERE k.chunk_digest = c.digest))";

/// The last of the next `limit` chunks behind `after`.
pub(crate) async fn chunk_bound(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Option<Digest>, DbErr> {
    // PostgreSQL 15 has no MAX of bytes.
    let sql = "SELECT digest FROM (SELECT digest FROM chunk WHERE digest > $1 ORDER BY digest LIMIT $2) AS next \
        ORDER BY digest DESC LIMIT 1";
    let values = vec![bytes(after), super::signed(limit).into()];
    let row = conn.query_one_raw(statement(conn, sql, values)).await?;
    let last: Option<Vec<u8>> = row.map(|row| row.try_get("", "digest")).transpose()?;
    last.as_deref().map(super::digest).transpose()
}

/// That a frame is live, where its id is given too: said so that no engine takes the index of states, which has nearly all
/// frames.
const IS_LIVE: &str = "COALESCE(state, '') = 'live'";

/// The frames, live or not, of chunks behind `after` up to `upto` that nothing needs.
pub(crate) async fn unneeded(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    upto: &Digest,
) -> Result<Vec<Uuid>, DbErr> {
    let sql = format!("SELECT c.frame_id FROM chunk c WHERE c.digest > $1 AND c.digest <= $2 AND NOT {NEEDED}");
    let asked = statement(conn, &sql, vec![bytes(after), bytes(Some(upto))]);
    let rows = conn.query_all_raw(asked).await?;
    rows.iter().map(|row| row.try_get("", "frame_id")).collect()
}

/// Condemns those of these frames that are live; gives how many.
pub(crate) async fn condemn(conn: &impl ConnectionTrait, ids: &[Uuid]) -> Result<u64, DbErr> {
    let now = super::now_ms(conn).await?;
    let mut condemned = 0;
    for batch in ids.chunks(super::BATCH) {
        let sql = format!(
            "UPDATE frame SET state = 'condemned', condemned_at_ms = {now} WHERE {IS_LIVE} AND id IN ({})",
            places(1, batch.len())
        );
        condemned += execute(conn, &sql, batch.iter().map(|id| Value::from(*id)).collect()).await?;
    }
    Ok(condemned)
}

/// Revives the condemned frames of chunks that something needs; gives how many. Nothing should ever need it.
pub(crate) async fn revive_needed(conn: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let sql = format!(
        "UPDATE frame SET state = 'live', condemned_at_ms = NULL WHERE state = 'condemned' AND id IN \
         (SELECT c.frame_id FROM chunk c WHERE c.frame_id IN \
             (SELECT id FROM frame WHERE condemned_at_ms IS NOT NULL) AND {NEEDED})"
    );
    execute(conn, &sql, Vec::new()).await
}

/// Condemns live frames that no chunk points to: what a repaired row pointed away from.
pub(crate) async fn condemn_unpointed(conn: &impl ConnectionTrait, ids: &[Uuid]) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    for id in ids {
        let sql = format!(
            "UPDATE frame SET state = 'condemned', condemned_at_ms = {now} WHERE id = $1 AND state = 'live' \
             AND NOT EXISTS (SELECT 1 FROM chunk c WHERE c.frame_id = frame.id)"
        );
        execute(conn, &sql, vec![(*id).into()]).await?;
    }
    Ok(())
}

/// Live frames that no chunk points to, at most `limit`.
pub(crate) async fn unpointed(conn: &impl ConnectionTrait, limit: u64) -> Result<Vec<Uuid>, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        id: Uuid,
    }
    let sql = "SELECT f.id FROM frame f WHERE f.state = 'live' \
        AND NOT EXISTS (SELECT 1 FROM chunk c WHERE c.frame_id = f.id) LIMIT $1";
    let rows = Row::find_by_statement(statement(conn, sql, vec![super::signed(limit).into()]));
    Ok(rows.all(conn).await?.into_iter().map(|row| row.id).collect())
}

/// Chunks that something needs and whose frame is condemned: there should be none.
pub(crate) async fn condemned_needed(conn: &impl ConnectionTrait, limit: u64) -> Result<Vec<Digest>, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        digest: Vec<u8>,
    }
    let sql = format!(
        "SELECT c.digest FROM chunk c JOIN frame f ON f.id = c.frame_id \
         WHERE f.condemned_at_ms IS NOT NULL AND f.state = 'condemned' AND {NEEDED} LIMIT $1"
    );
    let rows = Row::find_by_statement(statement(conn, &sql, vec![super::signed(limit).into()]));
    let rows = rows.all(conn).await?;
    rows.iter().map(|row| super::digest(&row.digest)).collect()
}

/// Frames in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) n: u64,
    pub(crate) stored_bytes: u64,
}

async fn count(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<Frames, DbErr> {
    let Some(row) = conn.query_one_raw(statement(conn, sql, values)).await? else {
        return Ok(Frames::default());
    };
    let (n, stored): (i64, i64) = (row.try_get("", "n")?, row.try_get("", "stored_bytes")?);
    Ok(Frames {
        n: n.unsigned_abs(),
        stored_bytes: stored.unsigned_abs(),
    })
}

const COUNT: &str = "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(stored_bytes), 0) AS BIGINT) AS stored_bytes FROM frame";

/// How many frames are in a state.
pub(crate) async fn count_state(conn: &impl ConnectionTrait, state: super::frame::FrameState) -> Result<Frames, DbErr> {
    count(conn, &format!("{COUNT} WHERE state = $1"), vec![state.as_str().into()]).await
}

/// How many frames were condemned before `before_ms`.
pub(crate) async fn count_condemned(conn: &impl ConnectionTrait, before_ms: i64) -> Result<Frames, DbErr> {
    count(
        conn,
        &format!("{COUNT} WHERE state = 'condemned' AND condemned_at_ms < $1"),
        vec![before_ms.into()],
    )
    .await
}

/// How many live frames hold chunks behind `after` up to `upto` that nothing needs already.
pub(crate) async fn count_unneeded(
    conn: &impl ConnectionTrait,
    after: Option<&Digest>,
    upto: &Digest,
) -> Result<Frames, DbErr> {
    let sql = format!(
        "{COUNT} WHERE {IS_LIVE} AND id IN \
         (SELECT c.frame_id FROM chunk c WHERE c.digest > $1 AND c.digest <= $2 AND NOT {NEEDED})"
    );
    count(conn, &sql, vec![bytes(after), bytes(Some(upto))]).await
}

/// The stored bytes of the frames of these chunks.
pub(crate) async fn stored_bytes(conn: &impl ConnectionTrait, digests: &[Digest]) -> Result<u64, DbErr> {
    let mut total = 0;
    for batch in digests.chunks(super::BATCH) {
        let sql = format!(
            "{COUNT} WHERE id IN (SELECT c.frame_id FROM chunk c WHERE c.digest IN ({}))",
            places(1, batch.len())
        );
        let values = batch.iter().map(|digest| Value::from(super::blob(digest))).collect();
        total += count(conn, &sql, values).await?.stored_bytes;
    }
    Ok(total)
}

/// Those live frames of these chunks that exactly `n_holders` runs need, and no kept file.
pub(crate) async fn count_held_by(
    conn: &impl ConnectionTrait,
    digests: &[Digest],
    n_holders: u64,
) -> Result<Frames, DbErr> {
    let mut total = Frames::default();
    for batch in digests.chunks(super::BATCH) {
        let sql = format!(
            "{COUNT} WHERE {IS_LIVE} AND id IN (SELECT c.frame_id FROM chunk c WHERE c.digest IN ({}) \
             AND (SELECT COUNT(*) FROM possession p WHERE p.digest = c.digest AND p.released_at_ms IS NULL) = $1 \
             AND NOT EXISTS (SELECT 1 FROM kept_chunk k WHERE k.chunk_digest = c.digest))",
            places(2, batch.len())
        );
        let mut values: Vec<Value> = vec![super::signed(n_holders).into()];
        values.extend(batch.iter().map(|digest| Value::from(super::blob(digest))));
        let found = count(conn, &sql, values).await?;
        total.n += found.n;
        total.stored_bytes += found.stored_bytes;
    }
    Ok(total)
}

/// Frames that were condemned before `before_ms` with their stored bytes, the oldest first.
pub(crate) async fn condemned(
    conn: &impl ConnectionTrait,
    before_ms: i64,
    limit: u64,
) -> Result<Vec<(Uuid, u64)>, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        id: Uuid,
        stored_bytes: i64,
    }
    let sql = "SELECT id, stored_bytes FROM frame WHERE state = 'condemned' AND condemned_at_ms < $1 \
        ORDER BY condemned_at_ms LIMIT $2";
    let values = vec![before_ms.into(), super::signed(limit).into()];
    let rows = Row::find_by_statement(statement(conn, sql, values)).all(conn).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.stored_bytes.unsigned_abs()))
        .collect())
}

/// Begins to delete a frame that was condemned before `before_ms` and that nothing needs: from now on its chunk counts
/// as missing. Whether it is to be deleted.
pub(crate) async fn begin_delete(conn: &impl ConnectionTrait, id: Uuid, before_ms: i64) -> Result<bool, DbErr> {
    let sql = format!(
        "UPDATE frame SET state = 'deleting' WHERE id = $1 AND state = 'condemned' AND condemned_at_ms < $2 \
         AND NOT EXISTS (SELECT 1 FROM chunk c WHERE c.frame_id = frame.id AND {NEEDED})"
    );
    if execute(conn, &sql, vec![id.into(), before_ms.into()]).await? == 0 {
        return Ok(false);
    }
    execute(conn, "DELETE FROM chunk WHERE frame_id = $1", vec![id.into()]).await?;
    Ok(true)
}

/// Forgets files that no run possesses and that are not kept, at most `limit`; gives how many. An empty one needs no
/// chunk and stays.
pub(crate) async fn forget_files(conn: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
    let sql = "DELETE FROM file WHERE digest IN (SELECT f.digest FROM file f WHERE f.size_bytes > 0 \
        AND NOT EXISTS (SELECT 1 FROM possession p WHERE p.digest = f.digest) \
        AND NOT EXISTS (SELECT 1 FROM kept_chunk k WHERE k.file_digest = f.digest) \
        AND NOT EXISTS (SELECT 1 FROM sample_log s WHERE s.file_digest = f.digest) LIMIT $1)";
    execute(conn, sql, vec![super::signed(limit).into()]).await
}

/// Forgets checkpoints that no run possesses, at most `limit`; gives how many.
pub(crate) async fn forget_checkpoints(conn: &impl ConnectionTrait, limit: u64) -> Result<u64, DbErr> {
    let sql = "DELETE FROM checkpoint WHERE digest IN (SELECT c.digest FROM checkpoint c \
        WHERE NOT EXISTS (SELECT 1 FROM possession p WHERE p.digest = c.digest) \
        AND NOT EXISTS (SELECT 1 FROM revision r WHERE r.checkpoint_digest = c.digest AND r.state = 'ready') LIMIT $1)";
    execute(conn, sql, vec![super::signed(limit).into()]).await
}

/// Forgets a deleted run that possesses nothing any more, with its evaluations; whether there was nothing.
pub(crate) async fn forget_run(conn: &impl ConnectionTrait, run_id: i64) -> Result<bool, DbErr> {
    if !possessed(conn, run_id, None, 1).await?.is_empty() {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM evaluation WHERE run_id = $1",
        "DELETE FROM release WHERE run_id = $1",
        "DELETE FROM run WHERE id = $1 AND deleted_at_ms IS NOT NULL",
    ] {
        execute(conn, sql, vec![run_id.into()]).await?;
    }
    Ok(true)
}
