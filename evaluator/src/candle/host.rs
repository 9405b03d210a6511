//! What the CPU does in float32 between matrix products, on all cores and without a pass more than it takes. Compiled for each
//! width of vectors and chosen as the program runs; the numbers are the same with all.

use pulp::Arch;
use rayon::prelude::*;

/// Rows that a task takes.
const ROWS: usize = 8;

/// Numbers that are taken together, so that the compiler makes vectors of them: a sum has so many parts.
const LANES: usize = 16;

/// e^x, to 2 units in the last place (Cephes' polynomial for 2^f on [-1/2, 1/2]); without a branch, so that the compiler
/// makes vectors of it. 0 below -87.3, infinity is never given: above 88.3 it is e^88.3. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to a whole number, which then stands in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.3 { -87.3 } else { x };
    let clamped = if clamped > 88.3 { 88.3 } else { clamped };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    // 2^n: the exponent is n + 127; what else stood in `rounded` is shifted away.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let value = (p * r * r + r + 1.0) * power;
    if x < -87.3 { 0.0 } else { value }
}

/// Makes scores the softmax of themselves: weights of sum 1, or NaN where one was NaN or infinite. The largest is taken away
/// first; the sum is in float64.
pub(crate) fn softmax(scores: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let largest = largest(scores);
            let (blocks, rest) = scores.as_chunks_mut::<LANES>();
            let mut sums = [0.0_f64; LANES];
            for block in blocks {
                for (score, sum) in block.iter_mut().zip(&mut sums) {
                    *score = exp(*score - largest);
                    *sum += f64::from(*score);
                }
            }
            let mut sum: f64 = sums.iter().sum();
            for score in rest {
                *score = exp(*score - largest);
                sum += f64::from(*score);
            }
            let factor = (1.0 / sum) as f32;
            scores.iter_mut().for_each(|score| *score *= factor);
        },
    );
}

/// The largest that is a number.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut of_lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (a, &b) in of_lanes.iter_mut().zip(block) {
            *a = larger(*a, b);
        }
    }
    of_lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Σ e^(x - largest), in float64.
#[inline(always)]
fn sum_of_exp(values: &[f32], largest: f32) -> f64 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for block in blocks {
        for (sum, &value) in sums.iter_mut().zip(block) {
            *sum += f64::from(exp(value - largest));
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(exp(value - largest))).sum();
    sums.iter().sum::<f64>() + rest
}

/// Where that number stands first; 0 where it does not.
#[inline(always)]
fn position(values: &[f32], wanted: f32) -> usize {
    let has = |block: &&[f32]| block.iter().fold(false, |has, &value| has | (value == wanted));
    let n_before = values.chunks(8 * LANES).take_while(|block| !has(block)).count() * 8 * LANES;
    let rest = values.get(n_before..).unwrap_or_default();
    rest.iter()
        .position(|&value| value == wanted)
        .map_or(0, |at| n_before + at)
}

/// silu(gate) · up in place of the gate, silu(x) = x / (1 + e^-x) (Shazeer, 2020).
pub(crate) fn gated(gate: &mut [f32], up: &[f32]) {
    let blocks = gate.par_chunks_mut(4096).zip(up.par_chunks(4096));
    blocks.for_each(|(gate, up)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = *gate / (1.0 + exp(-*gate)) * up;
                }
            },
        );
    });
}

/// Turns the heads of each row by its angles: x [N, heads · D], cos and sin [N, D / 2].
pub(crate) fn rotate(x: &mut [f32], width: usize, head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = head_dim / 2;
    let angles = cos.par_chunks(half * ROWS).zip(sin.par_chunks(half * ROWS));
    x.par_chunks_mut(width * ROWS)
        .zip(angles)
        .for_each(|(rows, (cos, sin))| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let angles = cos.chunks(half).zip(sin.chunks(half));
                    for (row, (cos, sin)) in rows.chunks_mut(width).zip(angles) {
                        row.chunks_mut(head_dim).for_each(|head| turn(head, cos, sin));
                    }
                },
            );
        });
}

/// Turns the pairs of a head [D] by angles [D / 2].
#[inline(always)]
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// What a row of logits says: log-probabilities of tokens, and the likeliest token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    /// Natural, of each token that was asked for.
    pub(crate) log_probabilities: Vec<f64>,
    /// The first of equals.
    pub(crate) likeliest: u32,
    /// Whether the row has neither NaN nor +Inf, and none of these log-probabilities is -Inf.
    pub(crate) is_finite: bool,
}

/// Reads rows of logits [n, V]: `tokens` are those that each is asked for.
pub(crate) fn read(logits: &[f32], vocabulary: usize, tokens: &[Vec<u32>]) -> Vec<Said> {
    let rows = logits.par_chunks(vocabulary).zip(tokens);
    rows.map(|(row, tokens)| said(row, tokens)).collect()
}

fn said(row: &[f32], tokens: &[u32]) -> Said {
    let (largest, likeliest, sum) = Arch::new().dispatch(
        #[inline(always)]
        || {
            let largest = largest(row);
            (largest, position(row, largest), sum_of_exp(row, largest))
        },
    );
    // Not a number where one of the row is none, or infinite.
    let all = f64::from(largest) + sum.ln();
    let log_probability = |&token: &u32| f64::from(row[token as usize]) - all;
    let log_probabilities: Vec<f64> = tokens.iter().map(log_probability).collect();
    Said {
        is_finite: all.is_finite() && log_probabilities.iter().all(|value| value.is_finite()),
        log_probabilities,
        likeliest: likeliest as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_the_standard_library() {
        let mut worst = 0.0_f32;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            worst = worst.max((exp(x) / x.exp() - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_softmax_has_the_sum_one_whatever_is_added() {
        let mut scores: Vec<f32> = (0..4096).map(|i| 1e4 + (i % 7) as f32).collect();
        softmax(&mut scores);
        let sum: f64 = scores.iter().map(|&weight| f64::from(weight)).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn logits_are_read_as_log_probabilities() {
        let logits = [0.0, (3.0_f32).ln(), 0.0, 5.0, 5.0, 5.0];
        let said = read(&logits, 3, &[vec![1, 0], vec![2]]);
        assert!((said[0].log_probabilities[0] - 0.6_f64.ln()).abs() < 1e-6);
        assert!((said[0].log_probabilities[1] - 0.2_f64.ln()).abs() < 1e-6);
        assert_eq!((said[0].likeliest, said[1].likeliest), (1, 0));
        assert!(said.iter().all(|said| said.is_finite));
        for row in [
            [f32::NAN, 0.0],
            [0.0, f32::NAN],
            [f32::INFINITY, 0.0],
            [0.0, f32::NEG_INFINITY],
        ] {
            assert!(!read(&row, 2, &[vec![1]])[0].is_finite, "{row:?}");
        }
        assert!(read(&[f32::NEG_INFINITY, 0.0], 2, &[vec![1]])[0].is_finite);
    }
}
