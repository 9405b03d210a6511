//! What the database holds, in numbers, for metrics. Every statement but [`frames`] reads an index of few rows.

use std::collections::BTreeMap;

use fineline_api::{CheckpointState, EvaluationState, PushSessionState};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use super::collect::Frames;

/// Evaluations that somebody may have to do something about.
const SHOWN: [EvaluationState; 4] = [
    EvaluationState::Queued,
    EvaluationState::Leased,
    EvaluationState::Failed,
    EvaluationState::Parked,
];

/// How long a worker that asked for work counts as there.
const WORKER_MS: i64 = 2 * 60 * 1000;

/// Counts of what is under way.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) open_push_sessions: u64,
    pub(crate) verifying_revisions: u64,
    pub(crate) evaluations: Vec<(EvaluationState, u64)>,
    /// How long the oldest queued evaluation has been waiting, in milliseconds; 0 without one.
    pub(crate) oldest_queued_ms: i64,
    /// Workers that asked lately or hold a lease.
    pub(crate) workers: u64,
    /// When a worker asked last; 0 when none ever did.
    pub(crate) worker_seen_at_ms: i64,
}

/// Counts it.
///
/// # Errors
/// When the database is down.
pub(crate) async fn read(conn: &impl ConnectionTrait) -> Result<State, DbErr> {
    let now = super::now_ms(conn).await?;
    let (open, verifying) = (PushSessionState::Open.as_str(), CheckpointState::Verifying.as_str());
    let count = "SELECT COUNT(*) AS n FROM";
    let open_push_sessions = format!("{count} push_session WHERE state = $1");
    let verifying_revisions = format!("{count} revision WHERE state = $1");
    let evaluations = format!("{count} evaluation WHERE state = $1");
    let mut by_state = Vec::new();
    for state in SHOWN {
        by_state.push((state, number(conn, &evaluations, vec![state.as_str().into()]).await?));
    }
    let (queued, leased) = (EvaluationState::Queued.as_str(), EvaluationState::Leased.as_str());
    let oldest = "SELECT MIN(created_at_ms) AS n FROM evaluation WHERE state = $1";
    let oldest = maybe(conn, oldest, vec![queued.into()]).await?;
    let workers = format!(
        "{count} (SELECT name, token_id FROM worker WHERE seen_at_ms >= $1 \
         UNION SELECT worker, token_id FROM evaluation WHERE state = $2) AS workers"
    );
    let seen = maybe(conn, "SELECT MAX(seen_at_ms) AS n FROM worker", Vec::new()).await?;
    Ok(State {
        open_push_sessions: number(conn, &open_push_sessions, vec![open.into()]).await?,
        verifying_revisions: number(conn, &verifying_revisions, vec![verifying.into()]).await?,
        evaluations: by_state,
        oldest_queued_ms: oldest.map_or(0, |since| (now - since).max(0)),
        workers: number(conn, &workers, vec![(now - WORKER_MS).into(), leased.into()]).await?,
        worker_seen_at_ms: seen.unwrap_or(0),
    })
}

/// All frames by state: a walk over the whole table.
///
/// # Errors
/// When the database is down.
pub(crate) async fn frames(conn: &impl ConnectionTrait) -> Result<BTreeMap<String, Frames>, DbErr> {
    let sql = "SELECT state, COUNT(*) AS n, CAST(COALESCE(SUM(stored_bytes), 0) AS BIGINT) AS stored_bytes \
        FROM frame GROUP BY state";
    let rows = conn
        .query_all_raw(Statement::from_string(conn.get_database_backend(), sql))
        .await?;
    let mut by_state = BTreeMap::new();
    for row in rows {
        let (n, stored): (i64, i64) = (row.try_get("", "n")?, row.try_get("", "stored_bytes")?);
        let frames = Frames {
            n: n.unsigned_abs(),
            stored_bytes: stored.unsigned_abs(),
        };
        by_state.insert(row.try_get("", "state")?, frames);
    }
    Ok(by_state)
}

async fn number(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, DbErr> {
    Ok(maybe(conn, sql, values).await?.unwrap_or(0).unsigned_abs())
}

async fn maybe(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<Option<i64>, DbErr> {
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, values);
    match conn.query_one_raw(statement).await? {
        Some(row) => row.try_get("", "n"),
        None => Ok(None),
    }
}
