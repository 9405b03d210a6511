//! Which step it is when a name only says tokens.

use super::RoundedTokens;

/// A step that was worked out from tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InferredStep {
    /// The step: the nearest to the tokens as written, or the multiple that it was moved to.
    pub step: u64,
    /// The nearest step, before it was moved.
    pub unsnapped: u64,
    /// The lowest step that the rounding of the tokens allows; no more than `unsnapped`.
    pub lowest: u64,
    /// The highest one; no less than `unsnapped`.
    pub highest: u64,
}

/// Divides tokens by those of one step. With a `multiple`, gives the nearest multiple of it, which the rounding of the
/// tokens must allow.
///
/// # Errors
/// A sentence, for 0 tokens a step, for a multiple of 0, and for tokens that are near no multiple.
pub fn infer_step(tokens: RoundedTokens, tokens_per_step: u64, multiple: Option<u64>) -> Result<InferredStep, String> {
    let RoundedTokens { tokens, half_unit } = tokens;
    if tokens_per_step == 0 {
        return Err("`0` tokens a step give no step: give the tokens of one step".to_owned());
    }
    let unsnapped = nearest(tokens, tokens_per_step.into());
    let lowest = tokens.saturating_sub(half_unit).div_ceil(tokens_per_step);
    let highest = tokens.saturating_add(half_unit) / tokens_per_step;
    // Tokens that are written in full need not be those of a whole step: the last batch may be short.
    let (lowest, highest) = (lowest.min(unsnapped), highest.max(unsnapped));
    let step = match multiple {
        None => unsnapped,
        Some(0) => return Err("no step is a multiple of `0`: give a number from 1 on".to_owned()),
        Some(multiple) => {
            let step = nearest(tokens, u128::from(tokens_per_step) * u128::from(multiple)).checked_mul(multiple);
            let step = step.filter(|step| (lowest..=highest).contains(step));
            step.ok_or_else(|| {
                format!(
                    "`{tokens}` tokens at `{tokens_per_step}` a step are step `{unsnapped}`, by their rounding \
                     `{lowest}` to `{highest}`, and no multiple of `{multiple}`: correct the tokens of a step or the \
                     multiple"
                )
            })?
        }
    };
    Ok(InferredStep {
        step,
        unsnapped,
        lowest,
        highest,
    })
}

/// The whole number that is nearest to a quotient, the upper of two.
fn nearest(tokens: u64, divisor: u128) -> u64 {
    let quotient = (u128::from(tokens) + divisor / 2) / divisor;
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::read_step_name;
    use super::*;

    const PER_STEP: u64 = 4_194_304;

    fn infer(name: &str, multiple: Option<u64>) -> Result<InferredStep, String> {
        infer_step(read_step_name(name).unwrap().tokens.unwrap(), PER_STEP, multiple)
    }

    #[test]
    fn the_papers_names_are_its_steps() {
        for (name, step) in [
            ("m-a-p/OpenLLaMA-Reproduce-100.66B", 24_000),
            ("m-a-p/OpenLLaMA-Reproduce-117.44B", 28_000),
            ("m-a-p/OpenLLaMA-Reproduce-218.1B", 52_000),
            ("m-a-p/OpenLLaMA-Reproduce-318.77B", 76_000),
            ("m-a-p/OpenLLaMA-Reproduce-754.97B", 180_000),
            ("m-a-p/OpenLLaMA-Reproduce-1023.41B", 244_000),
            ("m-a-p/OpenLLaMA-Reproduce-1073.74B", 256_000),
            ("m-a-p/OpenLLaMA-Reproduce-1509.95B", 360_000),
            ("m-a-p/Amber-Reproduce-901.78B", 215_000),
            ("m-a-p/Amber-Reproduce-998.24B", 238_000),
        ] {
            let inferred = infer(name, Some(1000)).unwrap();
            assert_eq!(inferred.step, step, "{name}");
            assert!(
                inferred.unsnapped.abs_diff(step) <= 1 || name.ends_with("218.1B"),
                "{name}: {inferred:?}"
            );
        }
    }

    #[test]
    fn a_wider_rounding_allows_more_steps() {
        let fine = infer("100.66B", None).unwrap();
        let expected = InferredStep {
            step: 23_999,
            unsnapped: 23_999,
            lowest: 23_999,
            highest: 24_000,
        };
        assert_eq!(fine, expected);
        let coarse = infer("218.1B", Some(1000)).unwrap();
        assert_eq!((coarse.step, coarse.unsnapped), (52_000, 51_999));
        assert_eq!((coarse.lowest, coarse.highest), (51_988, 52_011));
    }

    #[test]
    fn a_multiple_beyond_the_rounding_is_refused_with_both_numbers() {
        let error = infer("100.66B", Some(7000)).unwrap_err();
        for number in ["`100660000000`", "`23999`", "`24000`", "`7000`"] {
            assert!(error.contains(number), "{error}");
        }
        let exact = RoundedTokens {
            tokens: 1_000,
            half_unit: 0,
        };
        assert!(infer_step(exact, 0, None).is_err() && infer_step(exact, 1, Some(0)).is_err());
        // A short last batch.
        assert_eq!(infer_step(exact, 300, None).unwrap().step, 3);
        assert_eq!(infer_step(exact, 300, Some(3)).unwrap().step, 3);
        assert!(infer_step(exact, 300, Some(5)).is_err());
    }

    proptest! {
        #[test]
        fn a_step_is_found_again_by_its_rounded_tokens(step in 100u64..400, digits in 6u32..9) {
            // As such names are made: the step's tokens, rounded to a power of ten.
            let step = step * 1000;
            let unit = 10_u64.pow(digits);
            let tokens = (step * PER_STEP + unit / 2) / unit * unit;
            let rounded = RoundedTokens { tokens, half_unit: unit / 2 };
            let inferred = infer_step(rounded, PER_STEP, Some(1000)).unwrap();
            prop_assert_eq!(inferred.step, step);
        }

        #[test]
        fn no_numbers_panic(tokens: u64, half_unit: u64, per_step: u64, multiple in any::<Option<u64>>()) {
            if let Ok(found) = infer_step(RoundedTokens { tokens, half_unit }, per_step, multiple) {
                prop_assert!(found.lowest <= found.step && found.step <= found.highest);
                prop_assert!(found.lowest <= found.unsnapped && found.unsnapped <= found.highest);
                prop_assert!(multiple.is_none_or(|multiple| found.step % multiple == 0));
            }
        }
    }
}
