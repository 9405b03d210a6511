//! The digest of an evaluation's result, as the worker and the registry each work it out by themselves.
//!
//! **Invariant:** it follows from the scores alone: not from who computed which task, in which order they were posted, or
//! how a number is written. Numbers with a fraction go in as the 16 hex digits of their IEEE 754 bits.

use std::collections::BTreeMap;

use fineline_format::Digest;

use crate::score::TaskScore;

/// SHA-256 over the scores of one task: a compact JSON array with an array a score, sorted by metric and filter.
pub fn scores_digest(scores: &[TaskScore]) -> Digest {
    let mut sorted: Vec<&TaskScore> = scores.iter().collect();
    sorted.sort_by_key(|score| (&score.metric, &score.filter));
    let row = |score: &&TaskScore| {
        serde_json::json!([
            score.metric,
            score.filter,
            bits(score.value),
            score.stderr.map(bits),
            score.stderr_method,
            score.n,
            score.n_shot,
            score.higher_is_better,
            score.harness_version,
            score.provenance,
        ])
    };
    let rows: Vec<serde_json::Value> = sorted.iter().map(row).collect();
    Digest::of(serde_json::Value::from(rows).to_string().as_bytes())
}

/// SHA-256 over the tasks: a compact JSON object of each task's [`scores_digest`], sorted by the task's name.
pub fn result_digest(tasks: &BTreeMap<String, Digest>) -> Digest {
    let text = serde_json::to_vec(tasks).expect("names and digests are JSON");
    Digest::of(&text)
}

/// No database keeps the sign of a zero for sure.
fn bits(number: f64) -> String {
    format!("{:016x}", (number + 0.0).to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(metric: &str, value: f64) -> TaskScore {
        TaskScore {
            metric: metric.to_owned(),
            filter: "none".to_owned(),
            value,
            stderr: Some(value / 7.0),
            stderr_method: None,
            n: 3,
            n_shot: 0,
            higher_is_better: Some(true),
            harness_version: "1".to_owned(),
            provenance: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_and_sees_the_last_bit() {
        let (a, b) = (score("acc", 0.1), score("acc_norm", 0.3));
        let digest = scores_digest(&[a.clone(), b.clone()]);
        assert_eq!(digest, scores_digest(&[b.clone(), a]));
        assert_ne!(digest, scores_digest(&[score("acc", 0.1_f64.next_up()), b]));
        assert_eq!(
            scores_digest(&[score("acc", 0.0)]),
            scores_digest(&[score("acc", -0.0)])
        );
    }

    #[test]
    fn the_digests_are_those_of_the_text_that_the_description_gives() {
        let text = r#"[["acc","none","3fe0000000000000","3fb2492492492492",null,3,0,true,"1",{"a":"1","b":"2"}]]"#;
        let digest = scores_digest(&[score("acc", 0.5)]);
        assert_eq!(digest, Digest::of(text.as_bytes()));
        let tasks = BTreeMap::from([("z".to_owned(), digest), ("a".to_owned(), digest)]);
        let text = format!(r#"{{"a":"{digest}","z":"{digest}"}}"#);
        assert_eq!(result_digest(&tasks), Digest::of(text.as_bytes()));
    }

    #[test]
    fn a_score_crosses_the_wire_to_the_last_bit() {
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let sent = score("acc", (state >> 11) as f64 / (1_u64 << 53) as f64);
            let read: TaskScore = serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
            assert_eq!(read.value.to_bits(), sent.value.to_bits(), "{}", sent.value);
        }
    }
}
