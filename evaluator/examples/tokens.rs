//! The ids of texts, for a comparison with other tokenizers: `tokens DIR < TEXTS`, of which each line is a JSON string.
//!
//! A line of output is `{"ids":[…],"text":"…"}` by the folder's tokenizer, `text` being the ids' text again, and of a
//! tokenizer.model also `"pieces":[…]`, SentencePiece's own ids.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fineline_evaluator::config::Config;
use fineline_evaluator::tokenizer::Tokenizer;
use fineline_evaluator::tokenizer::sentencepiece::SentencePiece;
use serde_json::json;

const CONFIG: &str =
    r#"{"hidden_size":64,"intermediate_size":64,"num_hidden_layers":1,"num_attention_heads":1,"vocab_size":1}"#;

fn main() -> Result<()> {
    let dir: PathBuf = std::env::args_os().nth(1).context("a folder is wanted")?.into();
    let tokenizer = Tokenizer::load(&dir, &Config::parse(CONFIG.as_bytes())?)?;
    let model = std::fs::read(dir.join("tokenizer.model")).ok();
    let model = model.map(|bytes| SentencePiece::parse(&bytes)).transpose()?;
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text)?;
        let mut said = json!({ "text": tokenizer.decode(&ids)?, "ids": ids });
        if let Some(model) = &model {
            said["pieces"] = json!(model.encode(&text, true));
        }
        println!("{said}");
    }
    Ok(())
}
