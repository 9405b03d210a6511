//! Why a checkpoint can be stored and not evaluated, told from the names of its files: what trainers write for their own
//! restart is no model that an evaluator could load.
//!
//! **Invariant:** only what [`crate::weights::weight_files`] names is weights; an optimizer's file beside them changes
//! nothing.

use crate::Manifest;
use crate::weights::form_path;

/// What a tokenizer consists of, one of the first two at least; where both are there the first is read.
pub const TOKENIZER_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// Whether a checkpoint has a tokenizer of its own.
pub fn has_tokenizer(manifest: &Manifest) -> bool {
    TOKENIZER_FILES[..2].iter().any(|path| manifest.get(path).is_some())
}

/// Whether a file is what a trainer restarts from and no evaluation needs, told by its name: the states of optimizer,
/// scheduler, loss scaler and random numbers.
///
/// Below a folder `global_stepN` everything is, DeepSpeed's own copy of the weights too: it stands beside those of the
/// checkpoint. At the top `*_model_states.pt` is not, since there it is all the weights that there are. Files that hold
/// the weights together with other states (`model_optim_rng.pt`, `*.distcp`) and the small settings
/// (`training_args.bin`, `trainer_state.json`) are not either.
///
/// Only the name is asked: who leaves such files out should look whether weights remain, since
/// `*_optim_states.pt` is a part of them where ZeRO divided them.
pub fn is_optimizer_file(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_states = |folder: &str| {
        let digits = folder.strip_prefix("global_step").unwrap_or_default();
        let of_deepspeed = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        of_deepspeed || is_numbered(folder, "optimizer") || folder == "optim"
    };
    if folders.split('/').any(is_states) || name.ends_with("_optim_states.pt") {
        return true;
    }
    if name == "train.pt" || name == "distrib_optim.pt" {
        return true;
    }
    let Some((stem, "pt" | "pth" | "bin" | "pkl" | "ckpt" | "safetensors")) = name.rsplit_once('.') else {
        return false;
    };
    OPTIMIZER_STEMS.iter().any(|state| is_numbered(stem, state))
}

/// The names of a trainer's states, without their endings.
const OPTIMIZER_STEMS: [&str; 8] = [
    "optimizer",
    "optim",
    "scheduler",
    "lr_scheduler",
    "scaler",
    "rng_state",
    "rng_states",
    "random_states",
];

/// Whether a name is that word, perhaps with a rank behind it: `rng_state`, `rng_state_0`.
fn is_numbered(name: &str, word: &str) -> bool {
    let Some(rest) = name.strip_prefix(word) else {
        return false;
    };
    let rank = rest.strip_prefix(['_', '-']).unwrap_or_default();
    rest.is_empty() || !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands between a checkpoint and its evaluation, and what to do about it; `None` when nothing does.
/// `has_weights` says whether tensors could be read from it, `has_tokenizer` whether one is there, of its own or of its
/// run.
pub fn obstacle(manifest: &Manifest, has_weights: bool, has_tokenizer: bool) -> Option<String> {
    if !has_weights {
        return Some(without_weights(manifest));
    }
    if manifest.get("config.json").is_none() {
        return Some("no config.json: push it beside the weights".to_owned());
    }
    if has_tokenizer {
        return None;
    }
    Some("no tokenizer: push one, or set the run's default (`fineline run tokenizer`)".to_owned())
}

/// A trainer's own way to keep a model, by the name of one of its files.
fn trainers_form(name: &str) -> Option<(&'static str, &'static str)> {
    let zero = name.starts_with("zero_pp_rank_") || name.starts_with("bf16_zero_pp_rank_");
    let engine = name.ends_with("_model_states.pt") || name.ends_with("_optim_states.pt");
    if name.ends_with(".distcp") {
        let how = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR pytorch_model.bin";
        Some(("sharded as torch.distributed.checkpoint", how))
    } else if zero || engine {
        Some((
            "sharded by DeepSpeed ZeRO",
            "python zero_to_fp32.py DIR OUT --safe_serialization",
        ))
    } else if name == "model_optim_rng.pt" || name == "distrib_optim.pt" {
        Some(("sharded by Megatron", "Megatron's tools/checkpoint/convert.py"))
    } else {
        None
    }
}

fn without_weights(manifest: &Manifest) -> String {
    if let Some(path) = form_path(manifest) {
        let what = match path.strip_suffix(".index.json") {
            Some(_) => format!("a shard that `{path}` names"),
            None => format!("`{path}`"),
        };
        return format!(
            "{what} is in PyTorch's legacy form (no zip, as before PyTorch 1.6): it is kept and can be pulled, and its \
             tensors can't be listed: load it, save it with PyTorch 1.6 or later or as safetensors, and push that"
        );
    }
    for file in manifest.files() {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if let Some((what, how)) = trainers_form(name) {
            let path = &file.path;
            return format!("{what} (`{path}`): convert it with `{how}` and push what comes out with its config.json");
        }
    }
    let nested = manifest.files().iter().find_map(|file| {
        let (folder, name) = file.path.rsplit_once('/')?;
        crate::weights::is_form(name).then_some(folder)
    });
    match nested {
        Some(folder) => format!("its weights lie in the folder `{folder}`: push that folder as the step"),
        None => {
            "no weights: neither `model.safetensors` nor `pytorch_model.bin` nor an index of their shards".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, FileEntry};

    fn told(paths: &[&str], has_weights: bool) -> Option<String> {
        let entry = |path: &&str| FileEntry {
            path: (*path).to_owned(),
            size_bytes: 0,
            digest: Digest::of(b""),
        };
        let manifest = Manifest::new(paths.iter().map(entry).collect()).unwrap();
        obstacle(&manifest, has_weights, has_tokenizer(&manifest))
    }

    #[test]
    fn what_a_trainer_restarts_from_is_told_by_its_name() {
        for path in [
            "optimizer.pt",
            "optimizer.bin",
            "optimizer_1.bin",
            "optimizer_0/__0_0.distcp",
            "scheduler.pt",
            "scaler.pt",
            "rng_state.pth",
            "rng_state_7.pth",
            "random_states_0.pkl",
            "optim.safetensors",
            "optim.pt",
            "train.pt",
            "a/b/optim/rank0.pt",
            "distrib_optim.pt",
            "iter_0000500/mp_rank_00/distrib_optim.pt",
            "zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "global_step500/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "global_step500/zero_pp_rank_0_mp_rank_00_model_states.pt",
            "global_step500/mp_rank_00_model_states.pt",
            "global_step500/layer_00-model_00-model_states.pt",
        ] {
            assert!(is_optimizer_file(path), "{path}");
        }
        for path in [
            "model.safetensors",
            "pytorch_model.bin",
            "pytorch_model-00001-of-00002.bin",
            "training_args.bin",
            "trainer_state.json",
            "scheduler_config.json",
            "optimizer.json",
            "optimizer_card.pt",
            "model.pt",
            "model_optim_rng.pt",
            "__0_0.distcp",
            "mp_rank_00_model_states.pt",
            "global_step500",
            "global_steps/model.safetensors",
            "global_step/model.safetensors",
            "",
        ] {
            assert!(!is_optimizer_file(path), "{path}");
        }
    }

    #[test]
    fn each_trainers_form_is_named_with_its_way_out() {
        for (paths, words) in [
            (
                &["__0_0.distcp", ".metadata", "config.json"][..],
                ["`__0_0.distcp`", "dcp_to_torch"],
            ),
            (
                &["model/__1_0.distcp", "latest"],
                ["torch.distributed.checkpoint", "config.json"],
            ),
            (
                &["global_step500/zero_pp_rank_0_mp_rank_00_optim_states.pt"],
                ["ZeRO", "zero_to_fp32.py"],
            ),
            (
                &["global_step500/mp_rank_00_model_states.pt"],
                ["ZeRO", "global_step500/"],
            ),
            (
                &["bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt"],
                ["ZeRO", "zero_to_fp32.py"],
            ),
            (&["iter_0000500/mp_rank_00/model_optim_rng.pt"], ["Megatron", "convert"]),
            (
                &["pytorch_model.bin", "config.json"],
                [
                    "`pytorch_model.bin` is in PyTorch's legacy form",
                    "save it with PyTorch 1.6",
                ],
            ),
            (
                &["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
                ["a shard that `pytorch_model.bin.index.json`", "before PyTorch 1.6"],
            ),
            (
                &["hf/model.safetensors", "hf/config.json"],
                ["`hf`", "push that folder"],
            ),
            (
                &["optimizer.pt", "scheduler.pt", "rng_state_0.pth"],
                ["no weights", "pytorch_model.bin"],
            ),
        ] {
            let reason = told(paths, false).unwrap();
            assert!(words.iter().all(|word| reason.contains(word)), "{paths:?}: {reason}");
        }
    }

    #[test]
    fn weights_need_config_and_tokenizer_and_nothing_else_matters() {
        let model = ["config.json", "model.safetensors", "tokenizer.json"];
        assert_eq!(told(&model, true), None);
        let trained = [
            "optimizer.pt",
            "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "rng_state.pth",
        ];
        assert_eq!(told(&[&model[..], &trained].concat(), true), None);
        assert!(told(&model[1..], true).unwrap().contains("no config.json"));
        assert!(told(&model[..2], true).unwrap().contains("no tokenizer:"));
        let openllama = ["config.json", "pytorch_model.bin", "tokenizer.model"];
        assert_eq!(told(&openllama, true), None);
        let half = ["config.json", "pytorch_model.bin", "tokenizer_config.json"];
        assert!(told(&half, true).unwrap().contains("no tokenizer:"));
    }
}
