//! What a trainer's `trainer_state.json` says of its step: tokens and loss, where the caller of a push says neither.
//!
//! It never makes a push fail: what can't be read is told in a sentence.

use serde::Deserialize;
use serde_json::Value;

use crate::folder::LocalFile;

/// The file's path in a checkpoint.
const PATH: &str = "trainer_state.json";
/// A trainer's log of every step stands in it too, so it can be long.
const MAX_BYTES: u64 = 64 << 20;

/// What the file says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TrainerState {
    pub(crate) step: Option<u64>,
    pub(crate) tokens: Option<u64>,
    pub(crate) loss: Option<f64>,
}

/// The fields by the names that trainers use: ours and those of transformers' `Trainer`.
#[derive(Deserialize)]
struct Fields {
    global_step: Option<Value>,
    step: Option<Value>,
    tokens_seen: Option<Value>,
    num_input_tokens_seen: Option<Value>,
    train_loss: Option<Value>,
    loss: Option<Value>,
}

/// Reads the file when the folder has one; else, or when it can't be read, nothing and perhaps a sentence.
pub(crate) fn read(files: &[LocalFile]) -> (TrainerState, Option<String>) {
    let Some(local) = files.iter().find(|file| file.path == PATH) else {
        return (TrainerState::default(), None);
    };
    let refused = |why: String| (TrainerState::default(), Some(format!("`{PATH}` is not used: {why}")));
    if local.size_bytes > MAX_BYTES {
        return refused(format!("it has {} bytes", local.size_bytes));
    }
    match std::fs::read(&local.location) {
        Err(error) => refused(error.to_string()),
        Ok(json) => parse(&json).map_or_else(refused, |state| (state, None)),
    }
}

fn parse(json: &[u8]) -> Result<TrainerState, String> {
    let fields: Fields = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let count = |value: Option<Value>| value.and_then(|value| value.as_u64());
    let number = |value: Option<Value>| value.and_then(|value| value.as_f64());
    Ok(TrainerState {
        step: count(fields.global_step).or_else(|| count(fields.step)),
        // transformers writes 0 when it does not count tokens.
        tokens: count(fields.tokens_seen).or_else(|| count(fields.num_input_tokens_seen).filter(|n| *n > 0)),
        loss: number(fields.train_loss).or_else(|| number(fields.loss)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_trainers_are_read() {
        let ours = parse(br#"{"step":512,"global_step":512,"tokens_seen":1048576,"train_loss":4.5,"seed":1}"#).unwrap();
        let state = |step, tokens, loss| TrainerState { step, tokens, loss };
        assert_eq!(ours, state(Some(512), Some(1_048_576), Some(4.5)));
        let theirs = parse(br#"{"global_step":10,"num_input_tokens_seen":0,"log_history":[]}"#).unwrap();
        assert_eq!(theirs, state(Some(10), None, None));
        // A value of another kind costs that value alone.
        assert_eq!(
            parse(br#"{"step":"ten","tokens_seen":7}"#).unwrap(),
            state(None, Some(7), None)
        );
    }

    #[test]
    fn pythons_nan_is_told_and_no_failure() {
        assert!(parse(br#"{"step":1,"loss":NaN}"#).is_err());
    }
}
