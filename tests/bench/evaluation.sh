#!/usr/bin/env bash
# How fast tasks are evaluated, beside lm-eval's `hf` model on the same cores, and beside the floor; writes
# docs/benchmarks/evaluation.md and fails where a task is slower than lm-eval or an answer differs. Needs the packages of
# tests/full/checkpoints.sh --install, ../shared/data, and a machine that does nothing else.
#
#   tests/bench/evaluation.sh MODEL    a folder with SmolLM2-135M (../shared/tools/smollm2.py makes it)
#
# LIMIT=24            documents of a task     GENERATED=4     of a task that generates
# BATCH_SIZES="1 4 16"  of lm-eval            LOGS=DIR        keeps the raw logs    OUT=FILE    another page
set -euo pipefail
cd "$(dirname "$0")/../.."
model=${1:?a folder with SmolLM2-135M is wanted: ../shared/tools/smollm2.py makes it}
model=$(realpath "$model")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
python=${PYTHON:-$cache/venv-checkpoints/bin/python}
tasks=$(realpath ../shared/data/lm_eval/tasks 2>/dev/null) || { echo "skipped: bench/evaluation: there is no ../shared"; exit 0; }
[[ -x $python ]] || { echo "skipped: bench/evaluation: there is no lm_eval: tests/full/checkpoints.sh --install"; exit 0; }
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
export PYTHONPYCACHEPREFIX=$cache/pycache-checkpoints
cargo build --release --locked --quiet -p fineline-evaluator --example measure
measure=$CARGO_TARGET_DIR/release/examples/measure
logs=${LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/fineline-evaluation.XXXXXX")}
mkdir -p "$logs"
trap '[[ -n ${LOGS:-} ]] || rm -rf "$logs"' EXIT

scored=("$tasks/mmlu_anatomy.yaml:5")
for task in hellaswag arc_easy piqa winogrande boolq copa lambada val_rolling; do
    scored+=("$tasks/$task.yaml")
done

"$measure" products --like "$model" >"$logs/peak-before.json"
for dtype in float32 bfloat16; do
    mkdir -p "$logs/ours-$dtype"
    ours() { "$measure" tasks "$model" --dtype "$dtype" --logs "$logs/ours-$dtype" --limit "$@"; }
    ours "${LIMIT:-24}" "${scored[@]}" >"$logs/ours-$dtype.json"
    ours "${GENERATED:-4}" "$tasks/gsm8k.yaml" >>"$logs/ours-$dtype.json"
done
# One text of the model's whole length, for the time between two looks at whether to go on.
long=$logs/long
mkdir -p "$long"
"$python" tests/bench/evaluation/long.py "$tasks/../../run/val.txt" "$long"
"$measure" tasks "$model" --limit 1 --logs "$long" "$long/long.yaml" >"$logs/long.json"
theirs() { "$python" tests/bench/evaluation/theirs.py "$model" "$@" 2>"$logs/theirs.err" || { tail -20 "$logs/theirs.err" >&2; exit 1; }; }
for size in ${BATCH_SIZES:-1 4 16}; do
    mkdir -p "$logs/theirs-$size"
    theirs "${LIMIT:-24}" "$size" "$logs/theirs-$size" "${scored[@]}" >"$logs/theirs-$size.json"
    theirs "${GENERATED:-4}" "$size" "$logs/theirs-$size" "$tasks/gsm8k.yaml" >>"$logs/theirs-$size.json"
done
"$measure" products --like "$model" >"$logs/peak-after.json"
"$python" tests/bench/evaluation/report.py "$logs" "$model/config.json" "${OUT:-docs/benchmarks/evaluation.md}"
