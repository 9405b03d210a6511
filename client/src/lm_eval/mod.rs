//! lm-eval's output files: comparing two sets of them sample by sample, whoever wrote them.
//!
//! A set is results files and the sample logs beside them. Comparing needs no registry.

mod compare;
mod difference;
mod judge;
mod lines;
mod names;
mod results;
mod sample;
mod set;
mod tally;

pub use compare::{
    CompareError, CompareOptions, Comparison, DEFAULT_TOLERANCE, MetricComparison, ScoreComparison, TaskComparison,
    compare_results,
};
pub use difference::Differences;
