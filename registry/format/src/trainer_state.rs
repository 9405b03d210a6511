//! What a trainer's `trainer_state.json` says of its step: tokens and loss, where nobody says them otherwise.
//!
//! The log of all steps that transformers keeps in it is read as a stream: only its last loss is kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The file's path in a checkpoint.
pub const PATH: &str = "trainer_state.json";

/// The longest file that is worth reading: a log of every step stands in it too.
pub const MAX_BYTES: u64 = 64 << 20;

/// What the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrainerState {
    /// The training step.
    pub step: Option<u64>,
    /// The tokens trained on until then.
    pub tokens: Option<u64>,
    /// The training loss at the step, else the last one that was logged before it.
    pub loss: Option<f64>,
}

/// The fields by the names that trainers use: ours and those of transformers' `Trainer`.
#[derive(Deserialize)]
struct Fields<'a> {
    global_step: Option<Value>,
    step: Option<Value>,
    tokens_seen: Option<Value>,
    num_input_tokens_seen: Option<Value>,
    train_loss: Option<Value>,
    loss: Option<Value>,
    #[serde(borrow)]
    log_history: Option<&'a RawValue>,
}

/// An entry of the log; those of evaluations have no `loss`.
#[derive(Deserialize)]
struct Entry {
    step: Option<Value>,
    loss: Option<Value>,
}

/// Reads the file's bytes. A field of another kind than it should be says nothing.
///
/// # Errors
/// A sentence, when the file is no JSON object.
pub fn parse(json: &[u8]) -> Result<TrainerState, String> {
    let fields: Fields<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let step = count(fields.global_step).or_else(|| count(fields.step));
    let loss = number(fields.train_loss).or_else(|| number(fields.loss));
    Ok(TrainerState {
        step,
        // transformers writes 0 when it does not count tokens.
        tokens: count(fields.tokens_seen).or_else(|| count(fields.num_input_tokens_seen).filter(|n| *n > 0)),
        loss: loss.or_else(|| logged_loss(fields.log_history?, step)),
    })
}

fn count(value: Option<Value>) -> Option<u64> {
    value?.as_u64()
}

fn number(value: Option<Value>) -> Option<f64> {
    value?.as_f64()
}

/// The loss of the last entry that has one, at a step or before it.
fn logged_loss(log: &RawValue, until: Option<u64>) -> Option<f64> {
    let mut deserializer = serde_json::Deserializer::from_str(log.get());
    LastLoss { until }.deserialize(&mut deserializer).ok().flatten()
}

struct LastLoss {
    until: Option<u64>,
}

impl<'de> DeserializeSeed<'de> for LastLoss {
    type Value = Option<f64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for LastLoss {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut log: A) -> Result<Self::Value, A::Error> {
        let mut last = None;
        while let Some(Entry { step, loss }) = log.next_element()? {
            let is_later = self
                .until
                .is_some_and(|until| count(step).is_none_or(|step| step > until));
            last = number(loss).filter(|_| !is_later).or(last);
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: Option<u64>, tokens: Option<u64>, loss: Option<f64>) -> TrainerState {
        TrainerState { step, tokens, loss }
    }

    #[test]
    fn both_kinds_of_trainers_are_read() {
        let ours = parse(br#"{"step":512,"global_step":512,"tokens_seen":1048576,"train_loss":4.5,"seed":1}"#).unwrap();
        assert_eq!(ours, state(Some(512), Some(1_048_576), Some(4.5)));
        let theirs = parse(br#"{"global_step":10,"num_input_tokens_seen":0,"log_history":[]}"#).unwrap();
        assert_eq!(theirs, state(Some(10), None, None));
        // A value of another kind costs that value alone.
        assert_eq!(
            parse(br#"{"step":"ten","tokens_seen":7,"log_history":{"loss":1}}"#).unwrap(),
            state(None, Some(7), None)
        );
    }

    #[test]
    fn the_last_logged_loss_until_the_step_is_taken() {
        let log = r#"[{"loss":3.5,"step":5},{"loss":2.5,"step":10,"epoch":0.1},{"eval_loss":9.0,"step":10},
            {"loss":"none","step":10},{"loss":7.0},{"loss":1.5,"step":15},{"train_loss":8.0,"step":10}]"#;
        let loss = |fields: &str| {
            parse(format!("{{{fields}\"log_history\":{log}}}").as_bytes())
                .unwrap()
                .loss
        };
        assert_eq!(loss("\"global_step\":10,"), Some(2.5));
        assert_eq!(loss("\"global_step\":9,"), Some(3.5));
        assert_eq!(loss("\"global_step\":4,"), None);
        assert_eq!(loss(""), Some(1.5));
        // What stands at the top is of the step itself.
        assert_eq!(loss("\"global_step\":10,\"loss\":4.0,"), Some(4.0));
    }

    #[test]
    fn pythons_nan_is_told_and_no_failure() {
        assert!(parse(br#"{"step":1,"loss":NaN}"#).is_err());
    }
}
