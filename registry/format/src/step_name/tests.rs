//! Every spelling of the releases, and what must not be taken for one.

use proptest::prelude::*;

use super::*;

const BILLION: u64 = 1_000_000_000;

/// Step, tokens with half a unit, stage, ingredient.
type Told = (Option<u64>, Option<(u64, u64)>, Option<u64>, Option<u64>);

fn told(name: &str) -> Option<Told> {
    let read = read_step_name(name)?;
    let tokens = read.tokens.map(|rounded| (rounded.tokens, rounded.half_unit));
    Some((read.step, tokens, read.stage, read.ingredient))
}

#[test]
fn steps_are_read_in_every_spelling() {
    for (name, step) in [
        ("ckpt_000", 0),
        ("ckpt_358", 358),
        ("step0", 0),
        ("step143000", 143_000),
        ("step_5", 5),
        ("step-5000/", 5000),
        ("step-000016", 16),
        ("Step-16", 16),
        ("global_step500/", 500),
        ("checkpoint-500", 500),
        ("runs/a/checkpoint-500/", 500),
        ("iter_0000500", 500),
        ("iter-500-ckpt.pth", 500),
        ("ep3-ba1000", 1000),
        ("ep3-ba1000-rank0.pt", 1000),
        ("epoch=3-step=500.ckpt", 500),
        ("step6250-unsharded-hf", 6250),
        ("s3://bucket/run/step6250-unsharded-hf/", 6250),
        ("step69369-seed-default", 69_369),
        ("openlm-research/open_llama_7b_step_5000", 5000),
        ("open_llama_7b_step_250000", 250_000),
        ("CrystalCoder_phase1_checkpoint_027500", 27_500),
        ("multiberts-seed_0-step_100k", 100_000),
        ("model.ckpt-400000", 400_000),
        ("1195k", 1_195_000),
        ("1195K-hf", 1_195_000),
        // The word that says it best.
        ("ckpt_3_step_500", 500),
        ("checkpoint-step500-step500", 500),
    ] {
        assert_eq!(told(name), Some((Some(step), None, None, None)), "{name}");
    }
}

#[test]
fn tokens_are_read_with_their_rounding() {
    for (name, tokens, half_unit) in [
        ("100.66B", 100_660_000_000, 5_000_000),
        ("218.1b", 218_100_000_000, 50_000_000),
        ("m-a-p/OpenLLaMA-Reproduce-100.66B", 100_660_000_000, 5_000_000),
        ("OpenLLaMA-Reproduce-1073.74B-hf", 1_073_740_000_000, 5_000_000),
        ("Amber-Reproduce-901.78B", 901_780_000_000, 5_000_000),
        ("open_llama_7b_preview_200bt", 200 * BILLION, BILLION / 2),
        ("open_llama_7b_400bt_preview", 400 * BILLION, BILLION / 2),
        ("open_llama_7b_preview200BT", 200 * BILLION, BILLION / 2),
        ("2.5T", 2500 * BILLION, 50 * BILLION),
        ("1t", 1000 * BILLION, 500 * BILLION),
        ("model-7b-tokens8.39B", 8_390_000_000, 5_000_000),
        ("tokens1048576", 1_048_576, 0),
    ] {
        assert_eq!(
            told(name),
            Some((None, Some((tokens, half_unit)), None, None)),
            "{name}"
        );
    }
}

#[test]
fn names_that_say_both_are_read_whole() {
    let billion = |n: u64| Some((n * BILLION, BILLION / 2));
    let tiny = |step, tokens, half_unit| (Some(step), Some((tokens, half_unit)), None, None);
    for (name, expected) in [
        ("step1000-tokens4B", (Some(1000), billion(4), None, None)),
        (
            "stage1-step928646-tokens3896B",
            (Some(928_646), billion(3896), Some(1), None),
        ),
        (
            "stage2-ingredient1-step11931-tokens50B",
            (Some(11_931), billion(50), Some(2), Some(1)),
        ),
        (
            "stage2-ingredient3-step11931-tokens50B-hf",
            (Some(11_931), billion(50), Some(2), Some(3)),
        ),
        ("stage1-step-40000", (Some(40_000), None, Some(1), None)),
        (
            "TinyLlama/TinyLlama-1.1B-intermediate-step-1195k-token-2.5T",
            tiny(1_195_000, 2500 * BILLION, 50 * BILLION),
        ),
        (
            "TinyLlama-1.1B-intermediate-step-50K-104b",
            tiny(50_000, 104 * BILLION, BILLION / 2),
        ),
        (
            "TinyLlama-1.1B-intermediate-step-1431k-3T",
            tiny(1_431_000, 3000 * BILLION, 500 * BILLION),
        ),
    ] {
        assert_eq!(told(name), Some(expected), "{name}");
    }
}

#[test]
fn what_says_nothing_or_can_not_be_told_is_none() {
    for name in [
        "",
        "/",
        "main",
        "final",
        "latest",
        "hkg_amber_hf",
        "Amber-Reproduce-hkg_amber_hf",
        "v1.0",
        "v1.0.0",
        "2024-01-31",
        "20240131",
        "checkpoint-2024-01-31",
        "epoch_3",
        "ep3",
        "stage2",
        "stage2-ingredient1",
        "step",
        "steps-",
        "step-final",
        "step500x",
        "step1.5",
        "step-1.2345k",
        "5000",
        "model-00001-of-00003.safetensors",
        "iter.500",
        "laststep5",
        "step18446744073709551616",
        "step1000-step2000",
        "200bt-tokens300B",
        "５００k",
        "step٣",
        // Sizes of models, of their contexts, and of their batches.
        "7B",
        "70b",
        "1.1B",
        "2.7B",
        "46.7B",
        "10.7B",
        "7.615B",
        "8.39B",
        "100B",
        "410m",
        "checkpoint-410m",
        "ckpt-7b",
        "open_llama_7b",
        "open_llama_7b_v2",
        "Amber-7B",
        "LLM360/Amber",
        "pythia-2.8b",
        "pythia-12b-deduped",
        "SmolLM2-1.7B",
        "SmolLM2-1.7B-intermediate-checkpoints",
        "TinyLlama-1.1B",
        "OLMo-2-1124-7B",
        "OLMo-7B-0424-hf",
        "bloom-7b1",
        "Mixtral-8x7B",
        "SOLAR-10.7B",
        "Qwen3-235B-A22B",
        "Kimi-K2-1T",
        "Ling-1T",
        "llama-32k",
        "Qwen2.5-0.5B",
        "Falcon-180B",
        "RedPajama-INCITE-Base-3B-v1",
        "OpenELM-1_1B",
        "model-100.66B-chat",
    ] {
        assert_eq!(told(name), None, "{name}");
    }
    // The step is said; what stands beside it may be a size.
    for name in ["step5000-7B", "step-5k-7B", "pythia-2.8b-step5000", "step5000-218.1B"] {
        let read = read_step_name(name).unwrap();
        assert_eq!((read.step, read.tokens), (Some(5000), None), "{name}");
    }
}

/// How a step is written; `…` stands for it.
const SPELLINGS: [&str; 14] = [
    "ckpt_…",
    "step…",
    "step_…",
    "step-…/",
    "global_step…",
    "checkpoint-…",
    "iter_…",
    "iter-…-ckpt.pth",
    "ep3-ba…",
    "step…-tokens4B",
    "stage1-step…-tokens3896B",
    "stage2-ingredient1-step…-tokens50B",
    "step…-unsharded-hf",
    "open_llama_7b_step_…",
];

proptest! {
    #[test]
    fn a_written_step_is_read_back(step: u64, width in 0usize..12, upper: bool) {
        for spelling in SPELLINGS {
            let name = spelling.replace('…', &format!("{step:0width$}"));
            let name = if upper { name.to_uppercase() } else { name };
            prop_assert_eq!(read_step_name(&name).and_then(|read| read.step), Some(step), "{}", name);
        }
    }

    #[test]
    fn written_tokens_are_read_back(hundredths in 1_000u64..1_000_000) {
        let tokens = hundredths * 10_000_000;
        let amount = format!("{}.{:02}B", hundredths / 100, hundredths % 100);
        for name in [amount.clone(), format!("a-7b-{amount}"), format!("step5-tokens{amount}")] {
            let read = read_step_name(&name).and_then(|read| read.tokens);
            prop_assert_eq!(read, Some(RoundedTokens { tokens, half_unit: 5_000_000 }), "{}", name);
        }
    }

    #[test]
    fn a_models_size_is_never_tokens(whole in 0u64..2000, decimal in prop::option::of(0u64..10), unit in "[bBmMtT]") {
        let size = match decimal {
            Some(decimal) => format!("{}.{decimal}{unit}", whole % 100),
            None => format!("{whole}{unit}"),
        };
        for form in ["model-…", "model_…_hf", "…-base", "model…", "a-1b-…"] {
            let name = form.replace('…', &size);
            prop_assert_eq!(read_step_name(&name), None, "{}", name);
        }
    }

    #[test]
    fn no_name_panics(
        name in "\\PC{0,60}",
        words in prop::collection::vec("(step|tokens|7b|[-_./=]|é|9{1,25}|[kmbt]|1\\.)", 0..9),
    ) {
        read_step_name(&name);
        read_step_name(&words.concat());
    }
}
