//! Which part of the registry answers: the database, the store.
//!
//! **Invariant:** an answer comes in [`PATIENCE`] and a little, whatever hangs; a part that hangs is asked by one probe at
//! a time. What is said is said to anybody, so it has no address and no path; the log has the rest.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::app::App;
use crate::db;
use crate::store::StoreError;

/// How long a part may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub(crate) enum Part {
    Ok,
    /// It reads and takes nothing more: that is said, and keeps the registry ready.
    Full(String),
    Down(String),
}

/// How the parts are.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    pub(crate) database: Part,
    pub(crate) store: Part,
}

/// Whose turn it is to ask each part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes {
    database: Arc<Mutex<()>>,
    store: Arc<Mutex<()>>,
}

/// Asks both parts at once.
pub(crate) async fn probe(app: &App) -> Readiness {
    let (asked_db, asked_store) = (app.db.clone(), app.store.clone());
    let database = async move {
        db::probe(&asked_db)
            .await
            .map_or_else(|error| db_down(&error), |()| Part::Ok)
    };
    let store = async move {
        asked_store
            .probe()
            .await
            .map_or_else(|error| store_down(&error), |()| Part::Ok)
    };
    let (database, store) = tokio::join!(ask(&app.probes.database, database), ask(&app.probes.store, store));
    let is_up = |part: &Part| !matches!(part, Part::Down(_));
    for (name, part) in [("database", &database), ("store", &store)] {
        gauge!("fineline_part_up", "part" => name).set(f64::from(u8::from(is_up(part))));
    }
    Readiness {
        ready: is_up(&database) && is_up(&store),
        database,
        store,
    }
}

/// Asks a part when nobody else does; a probe that takes too long is left to itself and not repeated before its end.
async fn ask(turn: &Arc<Mutex<()>>, probe: impl Future<Output = Part> + Send + 'static) -> Part {
    let asked = async {
        let turn = turn.clone().lock_owned().await;
        let probe = async move {
            let part = probe.await;
            drop(turn);
            part
        };
        tokio::spawn(probe).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(part)) => part,
        Ok(Err(error)) => {
            tracing::error!(%error, "a probe panicked");
            Part::Down("the probe failed".to_owned())
        }
        Err(_) => Part::Down(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn db_down(error: &sea_orm::DbErr) -> Part {
    tracing::warn!(%error, "the database does not answer");
    Part::Down("it can't be read".to_owned())
}

fn store_down(error: &StoreError) -> Part {
    tracing::warn!(%error, "the store does not answer well");
    match error {
        StoreError::Full(_) => Part::Full("new bytes are refused, reading goes on".to_owned()),
        StoreError::Missing(_) => Part::Down("its folder is gone".to_owned()),
        StoreError::Other(_) => Part::Down("it can't be used".to_owned()),
    }
}
