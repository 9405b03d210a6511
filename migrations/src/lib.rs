//! The database schema, step by step. Each migration goes up and down, imports no entity and names everything by
//! string literals, so that what has landed never changes its meaning.
//!
//! **Invariant:** every column that holds a time is Unix milliseconds (`*_ms`), every digest 32 raw bytes, so that both
//! engines compare them alike.

#![expect(
    elided_lifetimes_in_paths,
    reason = "as in the trait, whose signature async_trait compares to the letter"
)]

use sea_orm_migration::prelude::*;

mod m20261124_000001_create_run;
mod m20261124_000002_create_content;
mod m20261124_000003_create_checkpoint;
mod m20261124_000004_create_evaluation;
mod m20261124_000005_name_suites_by_pattern;
mod m20261124_000006_collect_content;
mod m20261124_000007_join_sessions_order_evaluations;
mod m20261124_000008_create_web_session;
mod m20261124_000009_tell_lost_answers;
mod m20261125_000010_compare_text_by_bytes;
mod m20261125_000011_tell_when_tokens_were_used;
mod m20261125_000012_create_staging;
mod m20261125_000013_keep_and_move;
mod m20261125_000014_find_condemned_by_chunk;
mod m20261126_000015_keep_rows_by_digest;
mod m20261126_000016_tell_when_marks_begin;
mod m20261126_000017_schedule_bindings_limit_scores;
mod m20261127_000018_create_source;
mod m20261127_000019_tell_how_long_to_settle;

/// All migrations in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_create_run::Migration),
            Box::new(m20261124_000002_create_content::Migration),
            Box::new(m20261124_000003_create_checkpoint::Migration),
            Box::new(m20261124_000004_create_evaluation::Migration),
            Box::new(m20261124_000005_name_suites_by_pattern::Migration),
            Box::new(m20261124_000006_collect_content::Migration),
            Box::new(m20261124_000007_join_sessions_order_evaluations::Migration),
            Box::new(m20261124_000008_create_web_session::Migration),
            Box::new(m20261124_000009_tell_lost_answers::Migration),
            Box::new(m20261125_000010_compare_text_by_bytes::Migration),
            Box::new(m20261125_000011_tell_when_tokens_were_used::Migration),
            Box::new(m20261125_000012_create_staging::Migration),
            Box::new(m20261125_000013_keep_and_move::Migration),
            Box::new(m20261125_000014_find_condemned_by_chunk::Migration),
            Box::new(m20261126_000015_keep_rows_by_digest::Migration),
            Box::new(m20261126_000016_tell_when_marks_begin::Migration),
            Box::new(m20261126_000017_schedule_bindings_limit_scores::Migration),
            Box::new(m20261127_000018_create_source::Migration),
            Box::new(m20261127_000019_tell_how_long_to_settle::Migration),
        ]
    }
}
