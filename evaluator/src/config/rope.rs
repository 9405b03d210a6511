//! The rotary embedding's frequencies (Su et al., 2021) and how they are scaled for longer texts, as transformers'
//! `modeling_rope_utils.py` does it, in float32 as there.

use std::f32::consts::PI;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// A rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to them.
    pub scaling: Scaling,
}

/// How frequencies are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All are divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low ones are divided, high ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        /// The divisor of low ones.
        factor: f64,
        /// Waves longer than the original length by this are low.
        low: f64,
        /// Waves shorter than the original length by this are high.
        high: f64,
        /// The length that the model was trained with before.
        original_length: f64,
    },
}

impl Rope {
    /// The frequencies of a head: number i is theta^(-2i / head_dim) before it is scaled.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = |i: usize| 1.0 / (self.theta as f32).powf(2.0 * i as f32 / head_dim as f32);
        (0..head_dim / 2).map(|i| self.scaled(plain(i))).collect()
    }

    fn scaled(&self, frequency: f32) -> f32 {
        match self.scaling {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor as f32,
            Scaling::Llama3 {
                factor,
                low,
                high,
                original_length,
            } => {
                let wave = 2.0 * PI / frequency;
                if wave > (original_length / low) as f32 {
                    frequency / factor as f32
                } else if wave < (original_length / high) as f32 {
                    frequency
                } else {
                    let kept = (original_length as f32 / wave - low as f32) / (high - low) as f32;
                    (1.0 - kept) * frequency / factor as f32 + kept * frequency
                }
            }
        }
    }

    /// Reads transformers' v4 form (`rope_theta`, `rope_scaling`) and its v5 form (`rope_parameters`).
    pub(super) fn parse(
        theta: Option<f64>,
        scaling: Option<Map<String, Value>>,
        parameters: Option<Map<String, Value>>,
        max_length: usize,
    ) -> Result<Self> {
        let mut found = Fields {
            theta,
            ..Fields::default()
        };
        for (name, fields) in [("rope_scaling", scaling), ("rope_parameters", parameters)] {
            for (key, value) in fields.into_iter().flatten().filter(|(_, value)| !value.is_null()) {
                found.take(name, &key, &value)?;
            }
        }
        found.rope(max_length)
    }
}

#[derive(Default)]
struct Fields {
    theta: Option<f64>,
    kind: Option<String>,
    factor: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    original_length: Option<f64>,
}

impl Fields {
    fn take(&mut self, name: &str, key: &str, value: &Value) -> Result<()> {
        let number = || value.as_f64().with_context(|| format!("`{name}.{key}` is no number"));
        let place = match key {
            "rope_type" | "type" => {
                let kind = value.as_str().unwrap_or("?");
                let same = self.kind.as_deref().is_none_or(|known| known == kind);
                ensure!(same, "the rope type stands twice with two values");
                self.kind = Some(kind.to_owned());
                return Ok(());
            }
            "rope_theta" => &mut self.theta,
            "factor" => &mut self.factor,
            "low_freq_factor" => &mut self.low,
            "high_freq_factor" => &mut self.high,
            "original_max_position_embeddings" => &mut self.original_length,
            "partial_rotary_factor" if value.as_f64() == Some(1.0) => return Ok(()),
            other => bail!("`{name}.{other}` is not supported"),
        };
        let value = number()?;
        let same = place.is_none_or(|known| known == value);
        ensure!(same, "`{key}` stands twice with two values");
        *place = Some(value);
        Ok(())
    }

    fn rope(self, max_length: usize) -> Result<Rope> {
        let theta = self.theta.unwrap_or(10_000.0);
        ensure!(theta > 0.0, "`rope_theta` is {theta}: it must be above 0");
        let kind = self.kind.as_deref().unwrap_or("default");
        let needed = |field: &str, value: Option<f64>| {
            let value = value.with_context(|| format!("rope type `{kind}` needs `{field}`"))?;
            let is_sound = value.is_finite() && value > 0.0;
            ensure!(is_sound, "`{field}` of the rope is {value}: it must be above 0");
            Ok(value)
        };
        let given = [
            ("factor", self.factor, kind != "default"),
            ("low_freq_factor", self.low, kind == "llama3"),
            ("high_freq_factor", self.high, kind == "llama3"),
            (
                "original_max_position_embeddings",
                self.original_length,
                kind == "llama3",
            ),
        ];
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear {
                factor: needed("factor", self.factor)?,
            },
            "llama3" => {
                let (low, high) = (
                    needed("low_freq_factor", self.low)?,
                    needed("high_freq_factor", self.high)?,
                );
                ensure!(
                    low < high,
                    "`high_freq_factor` is {high}: it must be above `low_freq_factor`"
                );
                let original = self.original_length.unwrap_or(max_length as f64);
                Scaling::Llama3 {
                    factor: needed("factor", self.factor)?,
                    low,
                    high,
                    original_length: needed("original_max_position_embeddings", Some(original))?,
                }
            }
            other => bail!("rope type `{other}` is not supported: only `default`, `linear` and `llama3` are"),
        };
        if let Some((field, ..)) = given.iter().find(|(_, value, is_read)| value.is_some() && !is_read) {
            bail!("rope type `{kind}` has no `{field}`");
        }
        Ok(Rope { theta, scaling })
    }
}
