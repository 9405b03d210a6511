//! Who may name a digest: the table behind the one rule in `service::possession`.

use std::collections::{BTreeSet, HashMap, HashSet};

use fineline_api::RunPattern;
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr, ExprTrait as _, Func, IntoColumnRef, OnConflict, SimpleExpr};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, JoinType, QueryFilter,
    QuerySelect, RelationDef, Select,
};

use super::entity::{chunk, frame, possession, run};

fn run_of_possession() -> RelationDef {
    possession::Entity::belongs_to(run::Entity)
        .from(possession::Column::RunId)
        .to(run::Column::Id)
        .into()
}

/// Whose possession is asked for: that of the runs which a pattern matches. A deleted run counts until it is forgotten, for
/// whoever could know of it: who may do so since `since_ms`; not for who came later, when its name may be another run's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holders<'a> {
    pub(crate) pattern: &'a RunPattern,
    pub(crate) since_ms: i64,
}

impl Holders<'_> {
    fn condition(self) -> Condition {
        super::run::matches_ever(self.pattern).add(
            Condition::any()
                .add(run::Column::DeletedAtMs.is_null())
                .add(run::Column::DeletedAtMs.gt(self.since_ms)),
        )
    }
}

/// Which of `digests` a ready checkpoint of the run holds, or held until the run let go of them.
pub(crate) async fn published(
    conn: &impl ConnectionTrait,
    run_id: i64,
    digests: &[Digest],
) -> Result<HashSet<Digest>, DbErr> {
    let ask = |batch: Vec<Digest>| async move {
        let query = possession::Entity::find()
            .select_only()
            .column(possession::Column::Digest)
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(possession::Column::RunId.eq(run_id))
            .filter(possession::Column::PublishedAtMs.is_not_null());
        query.into_tuple().all(conn).await
    };
    let rows: Vec<Vec<u8>> = super::batches::ask(digests, ask).await?;
    rows.iter().map(|row| super::digest(row)).collect()
}

/// A chunk that is held and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedChunk {
    pub(crate) size_bytes: u64,
    /// Whether a holder has let go of it, or a frame of it is condemned: who relies on it has to take that back.
    pub(crate) is_going: bool,
}

/// The size of the chunk of a possession where a frame holds it that is not known to be damaged, else null. As a subquery of the
/// row and not as a join: so it is looked for only once the possession counts.
fn stored_size_of_chunk() -> SimpleExpr {
    let mut stored = sea_orm::sea_query::Query::select();
    stored
        .column(chunk::Column::SizeBytes)
        .from(chunk::Entity)
        .and_where(is_of_possession((chunk::Entity, chunk::Column::Digest)))
        .and_where(Expr::col((chunk::Entity, chunk::Column::DamagedAtMs)).is_null());
    stored.into()
}

/// Whether the chunk of a possession has a condemned frame, by the index of those alone: a frame's own row lies anywhere. One
/// that no row of `chunk` points to any more counts too, which costs the asker a transaction and changes no answer.
fn chunk_is_condemned() -> SimpleExpr {
    let mut condemned = sea_orm::sea_query::Query::select();
    condemned
        .expr(Expr::value(1))
        .from(frame::Entity)
        .and_where(is_of_possession((frame::Entity, frame::Column::ChunkDigest)))
        .and_where(Expr::col((frame::Entity, frame::Column::CondemnedAtMs)).is_not_null());
    Expr::exists(condemned)
}

fn is_of_possession(digest: impl IntoColumnRef) -> SimpleExpr {
    Expr::col(digest).equals((possession::Entity, possession::Column::Digest))
}

/// The statement of [`named_chunks`]; docs/adr/0012 has how either engine goes about it.
fn named_chunks_query(holders: Holders<'_>, unpublished: bool, digests: &[Digest]) -> Select<possession::Entity> {
    let mut query = possession::Entity::find()
        .select_only()
        .column(possession::Column::Digest)
        // A time where one of the holders has let go of it.
        .column_as(possession::Column::ReleasedAtMs.max(), "released_at_ms")
        .expr_as(stored_size_of_chunk(), "size_bytes")
        .expr_as(chunk_is_condemned(), "condemned")
        // One row, however many hold it.
        .group_by(possession::Column::Digest)
        .join(JoinType::InnerJoin, run_of_possession())
        .filter(possession::Column::Digest.is_in(digests.iter().map(super::blob)))
        .filter(holders.condition());
    if !unpublished {
        query = query.filter(possession::Column::PublishedAtMs.is_not_null());
    }
    query
}

/// Those of `digests` that are held and that a frame holds which is not known to be damaged. Held is what a ready checkpoint
/// holds, and where `unpublished`, that too whose bytes were only put. One statement for what `missing` is asked ten thousand
/// times at once.
pub(crate) async fn named_chunks(
    conn: &impl ConnectionTrait,
    holders: Holders<'_>,
    unpublished: bool,
    digests: &[Digest],
) -> Result<HashMap<Digest, NamedChunk>, DbErr> {
    #[derive(FromQueryResult)]
    struct Named {
        digest: Vec<u8>,
        released_at_ms: Option<i64>,
        size_bytes: Option<i64>,
        condemned: bool,
    }
    let ask = |batch: Vec<Digest>| async move {
        let query = named_chunks_query(holders, unpublished, &batch);
        query.into_model::<Named>().all(conn).await
    };
    let mut named = HashMap::new();
    for row in super::batches::ask(digests, ask).await? {
        let Some(size_bytes) = row.size_bytes else { continue };
        let chunk = NamedChunk {
            size_bytes: size_bytes.unsigned_abs(),
            is_going: row.released_at_ms.is_some() || row.condemned,
        };
        named.insert(super::digest(&row.digest)?, chunk);
    }
    Ok(named)
}

/// Which of `digests` other runs than `run_id` hold that `pattern` matches, deleted ones not among them.
pub(crate) async fn held_by_others(
    conn: &impl ConnectionTrait,
    run_id: i64,
    pattern: &RunPattern,
    digests: &[Digest],
) -> Result<HashSet<Digest>, DbErr> {
    let mut held = HashSet::new();
    for batch in digests.chunks(super::BATCH) {
        let query = possession::Entity::find()
            .select_only()
            .column(possession::Column::Digest)
            .distinct()
            .join(JoinType::InnerJoin, run_of_possession())
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(possession::Column::RunId.ne(run_id))
            .filter(possession::Column::ReleasedAtMs.is_null())
            .filter(super::run::matches(pattern));
        let rows: Vec<Vec<u8>> = query.into_tuple().all(conn).await?;
        for row in rows {
            held.insert(super::digest(&row)?);
        }
    }
    Ok(held)
}

/// Which of `digests` a run holds that it has not let go of.
pub(crate) async fn kept_by(
    conn: &impl ConnectionTrait,
    run_id: i64,
    digests: &[Digest],
) -> Result<HashSet<Digest>, DbErr> {
    let mut kept = HashSet::new();
    for batch in digests.chunks(super::BATCH) {
        let query = possession::Entity::find()
            .select_only()
            .column(possession::Column::Digest)
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(possession::Column::RunId.eq(run_id))
            .filter(possession::Column::PublishedAtMs.is_not_null())
            .filter(possession::Column::ReleasedAtMs.is_null());
        let rows: Vec<Vec<u8>> = query.into_tuple().all(conn).await?;
        for row in rows {
            kept.insert(super::digest(&row)?);
        }
    }
    Ok(kept)
}

/// Lets every run that possesses a file possess these chunks as it does the file: what the file is cut into now.
pub(crate) async fn share(conn: &impl ConnectionTrait, file: &Digest, chunks: &[Digest]) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let holders = possession::Entity::find()
        .filter(possession::Column::Digest.eq(super::blob(file)))
        .all(conn)
        .await?;
    for holder in holders.iter().filter(|holder| holder.released_at_ms.is_none()) {
        insert(conn, holder.run_id, chunks, holder.published_at_ms.is_some()).await?;
    }
    // Who has let go of the file has let go of its chunks, and may still name both until the grace is over.
    for holder in holders.iter().filter(|holder| holder.released_at_ms.is_some()) {
        for batch in chunks.chunks(super::BATCH) {
            let rows = batch.iter().map(|chunk| possession::ActiveModel {
                digest: Set(super::blob(chunk)),
                run_id: Set(holder.run_id),
                put_at_ms: Set(now),
                published_at_ms: Set(holder.published_at_ms),
                released_at_ms: Set(holder.released_at_ms),
            });
            let once = OnConflict::columns([possession::Column::Digest, possession::Column::RunId])
                .do_nothing()
                .to_owned();
            possession::Entity::insert_many(rows)
                .on_conflict(once)
                .try_insert()
                .exec_without_returning(conn)
                .await?;
        }
    }
    Ok(())
}

/// Takes back that these runs let go of these digests: somebody was told that they are there.
pub(crate) async fn revive(conn: &impl ConnectionTrait, holders: Holders<'_>, digests: &[Digest]) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    for batch in digests.chunks(super::BATCH) {
        let mut runs = sea_orm::sea_query::Query::select();
        runs.column(run::Column::Id)
            .from(run::Entity)
            .cond_where(holders.condition());
        let update = possession::Entity::update_many()
            .col_expr(possession::Column::ReleasedAtMs, Expr::value(None::<i64>))
            .col_expr(possession::Column::PutAtMs, Expr::value(now))
            .filter(possession::Column::ReleasedAtMs.is_not_null())
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(possession::Column::RunId.in_subquery(runs));
        update.exec(conn).await?;
    }
    Ok(())
}

/// Writes that the bytes of `digests` were put into a run (it lets go of none of them), and where `published`, that a ready
/// checkpoint holds them. A row that says so already is not written again unless a mark began since its time: a mark alone asks
/// for that time, to compare it with its own beginning, and one that is yet to begin finds either time before it.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    run_id: i64,
    digests: &[Digest],
    published: bool,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let published_at_ms = published.then_some(now);
    // One statement may not write a row twice on PostgreSQL.
    let digests: Vec<Digest> = BTreeSet::from_iter(digests.iter().copied()).into_iter().collect();
    for batch in digests.chunks(super::BATCH) {
        let rows = batch.iter().map(|digest| possession::ActiveModel {
            digest: Set(super::blob(digest)),
            run_id: Set(run_id),
            put_at_ms: Set(now),
            published_at_ms: Set(published_at_ms),
            released_at_ms: Set(None),
        });
        // The first publication stays; what was published never becomes less.
        let earliest = Func::coalesce([
            Expr::col((possession::Entity, possession::Column::PublishedAtMs)),
            Expr::value(published_at_ms),
        ]);
        let again = OnConflict::columns([possession::Column::Digest, possession::Column::RunId])
            .value(possession::Column::PublishedAtMs, earliest)
            .update_columns([possession::Column::PutAtMs, possession::Column::ReleasedAtMs])
            .action_and_where(says_less(published).into())
            .to_owned();
        possession::Entity::insert_many(rows)
            .on_conflict(again)
            .exec_without_returning(conn)
            .await?;
    }
    Ok(())
}

/// Whether a row that is there says less than that its digest was just put, or published.
fn says_less(published: bool) -> Condition {
    let of_row = |column| Expr::col((possession::Entity, column));
    let mut last_mark = sea_orm::sea_query::Query::select();
    last_mark.column("begun_at_ms").from("mark");
    let mut says_less = Condition::any()
        .add(of_row(possession::Column::ReleasedAtMs).is_not_null())
        .add(of_row(possession::Column::PutAtMs).lt(SimpleExpr::from(last_mark)));
    if published {
        says_less = says_less.add(of_row(possession::Column::PublishedAtMs).is_null());
    }
    says_less
}

#[cfg(test)]
mod tests {
    use fineline_api::run::RunAttributes;
    use sea_orm::{DbBackend, QueryTrait as _};

    use super::*;
    use crate::db::sqlite::tests::{given, plan};
    use crate::db::{self, Db, collect};
    use crate::tests::fixture::database_of;

    #[tokio::test]
    async fn what_was_put_is_written_again_when_a_mark_began_when_it_was_let_go_of_and_when_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let txn = db::write_txn(&db).await.unwrap();
        let (name, attributes) = ("lab/run".parse().unwrap(), RunAttributes::default());
        let run = db::run::insert(&txn, &name, &attributes).await.unwrap().unwrap().id;
        let digests = [Digest::of(b"a")];
        let put = async |publish| insert(&txn, run, &digests, publish).await.unwrap();
        let row = async || collect::possessed(&txn, run, None, 1).await.unwrap()[0];
        let later = async || {
            let sql = "UPDATE possession SET put_at_ms = put_at_ms - 1000";
            db::execute(&txn, sql, Vec::new()).await.unwrap();
        };

        put(false).await;
        later().await;
        let first = row().await;
        put(false).await;
        assert_eq!(row().await.put_at_ms, first.put_at_ms, "no mark began");

        let begun = collect::begin_mark(&txn).await.unwrap();
        assert!(first.put_at_ms < begun);
        put(false).await;
        let released = collect::release(&txn, run, &digests, begun).await.unwrap();
        assert_eq!(released, 0, "it was named since the mark began");

        assert_eq!(collect::release(&txn, run, &digests, i64::MAX).await.unwrap(), 1);
        put(false).await;
        assert!(!row().await.released);

        assert!(published(&txn, run, &digests).await.unwrap().is_empty());
        put(true).await;
        assert_eq!(published(&txn, run, &digests).await.unwrap().len(), 1);
        // A mark whose clock was put back takes nothing from one that goes on.
        db::execute(&txn, "UPDATE mark SET begun_at_ms = begun_at_ms + 60000", Vec::new())
            .await
            .unwrap();
        collect::begin_mark(&txn).await.unwrap();
        put(true).await;
        later().await;
        let before = row().await.put_at_ms;
        put(true).await;
        assert!(row().await.put_at_ms > before);
    }

    #[tokio::test]
    async fn thousands_of_chunks_are_searched_for_by_their_key_and_nothing_is_read_through_on_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        let db = given(dir.path()).await;
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        for pattern in ["*", "lab/*", "lab/run"] {
            let pattern = pattern.parse().unwrap();
            let holders = Holders {
                pattern: &pattern,
                since_ms: 0,
            };
            let plan = plan(
                &db,
                named_chunks_query(holders, true, &digests).build(DbBackend::Sqlite),
            )
            .await;
            let is_slow = |line: &String| line.contains("SCAN") || line.contains("TEMP B-TREE");
            assert!(!plan.iter().any(is_slow), "{pattern}: {plan:#?}");
            for searched in [
                "SEARCH possession USING PRIMARY KEY (digest=?",
                "SEARCH chunk USING PRIMARY KEY (digest=?)",
                "SEARCH frame USING INDEX frame_condemned_chunk (chunk_digest=?)",
            ] {
                assert!(
                    plan.iter().any(|line| line.starts_with(searched)),
                    "{pattern}: {plan:#?}"
                );
            }
        }
    }
}
