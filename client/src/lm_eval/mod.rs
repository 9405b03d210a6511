//! lm-eval's output files: writing a checkpoint's scores as lm-eval 0.4.13 would have (`export`), and comparing two sets of
//! them sample by sample, whoever wrote them (`compare`).
//!
//! A set is results files and the sample logs beside them. Comparing needs no registry.

mod compare;
mod difference;
mod export;
mod judge;
mod lines;
mod names;
mod pending;
mod results;
mod results_file;
mod sample;
mod set;
mod tally;

pub use compare::{
    CompareError, CompareOptions, Comparison, DEFAULT_TOLERANCE, MetricComparison, ScoreComparison, TaskComparison,
    compare_results,
};
pub use difference::Differences;
pub use export::{ExportOptions, ExportOutcome, export_results};
pub use results_file::OWN_KEY;
