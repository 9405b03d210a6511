#!/usr/bin/env bash
# Every sample of the evaluator against lm-eval's own, on each model and task of which ../shared/data has lm-eval's logs, and on
# SmolLM2-135M, on which lm-eval is run here: prompts, texts, greedy flags, decisions, log-likelihoods; in bfloat16 as many equal
# decisions as lm-eval's own bfloat16 has with its float32. Fails on any breach. Takes 20 minutes.
#
#   tests/full/parity.sh [MODEL]    MODEL is a folder with SmolLM2-135M; ../shared/tools/smollm2.py makes it when none is named
#
# LIMIT=20  documents a task on SmolLM2    PYTHON=...  one that has lm_eval; else what tests/full/checkpoints.sh --install made
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
python=${PYTHON:-$cache/venv-checkpoints/bin/python}
[[ -d ../shared/data/lm_eval ]] || { echo "skipped: full/parity: there is no ../shared/data beside the clone"; exit 0; }
version=$(tr -d '\r' <tests/full/checkpoints/requirements.txt | sed -n 's/^lm_eval==//p')
has=$("$python" -c 'from importlib.metadata import version; print(version("lm_eval"))' 2>/dev/null) || has=none
[[ $has == "$version" ]] ||
    { echo "skipped: full/parity: lm_eval is $has and not $version: tests/full/checkpoints.sh --install"; exit 0; }
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=true
export PYTHONPYCACHEPREFIX=$cache/pycache-checkpoints
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-parity.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HF_HOME=$work/hf
model=${1:-}
if [[ -z $model || $model == --* ]]; then # options are those of the other scripts
    model=$cache/smollm2
    [[ -f $model/config.json ]] || "$python" ../shared/tools/smollm2.py "$model" ||
        { echo "skipped: full/parity: there is no SmolLM2-135M and ../shared/tools/smollm2.py can't make it here"; exit 0; }
fi
cargo build --release --locked --quiet -p fineline-evaluator --example measure
cargo build --release --locked --quiet -p fineline-client --bin fineline
"$python" tests/full/parity/compare.py "$CARGO_TARGET_DIR/release" "$(realpath "$model")" "$(realpath ../shared/data)" "$work" "${LIMIT:-20}"
