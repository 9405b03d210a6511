#!/usr/bin/env bash
# Whether a card computes as it should, and how fast: all that an NVIDIA card is wanted for, unattended. Packed here, since a GPU machine
# may have no network and no Rust, and run there.
#
#   tests/gpu.sh pack [--cpu] DIR              puts programs, tasks, small models, a tokenizer and lm-eval's wheels into DIR
#   tests/gpu.sh run DIR OUT [OPTION...] [PART...]    runs parts, all by default, those first that tell most for least
#   tests/gpu.sh report PAGE TINY-OUT [OUT]    writes docs/benchmarks/gpu.md from results
#
# pack: `--cpu` packs an ordinary build and no wheels, for `run --device cpu --tiny`. PYTHON=... has lm_eval and tokenizers, else it is
# what tests/full/checkpoints.sh --install made. Needs ../shared/data.
# run: `--device cuda:0`; `--tiny` for small shapes; `--again` for parts whose result is in OUT already; `--seconds N` begins no part that
# would usually take longer than what is left; `--work DIR` for what is unpacked and generated, 50 GB. A part is ended after eight minutes.
# OUT gets a JSON file a part and report.md. Exits with 1 when a check falls short, a part breaks or was not begun.
set -euo pipefail
cd "$(dirname "$0")/.."

pack() {
    local features=cuda out stage data python
    if [[ ${1:-} == --cpu ]]; then features=cpu; shift; fi
    out=${1:?a folder is wanted}
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
    python=${PYTHON:-$cache/venv-checkpoints/bin/python}
    data=$(realpath ../shared/data)
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
    stage=$(mktemp -d "${TMPDIR:-/tmp}/fineline-pack.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$stage'" EXIT
    mkdir -p "$stage/bin" "$out"
    if [[ $features == cuda ]]; then
        evaluator/cuda/build.sh "$stage/bin" --example measure
    else
        cargo build --release --locked --quiet -p fineline-evaluator --bin fineline-evaluator --example measure
        cp "$CARGO_TARGET_DIR/release/fineline-evaluator" "$CARGO_TARGET_DIR/release/examples/measure" "$stage/bin"
    fi
    # Without the embedded evaluator.
    cargo build --release --locked --quiet -p fineline-registry --no-default-features
    cargo build --release --locked --quiet -p fineline-client --bin fineline
    cp "$CARGO_TARGET_DIR/release/fineline-registry" "$CARGO_TARGET_DIR/release/fineline" "$stage/bin"
    strip "$stage/bin"/*
    "$python" tests/gpu/words.py "$data/run/step-003000" "$stage/tokenizer" 32000 "$data/run/val.txt" \
        "$data/eval/hellaswag/validation.jsonl" "$data/eval/mmlu/test.jsonl" "$data/eval/lambada/test.jsonl"
    "$python" tests/gpu/pack.py "$out" "$stage/bin" "$features" "$data"
}

command=${1:-}
[[ $# -gt 0 ]] && shift
case $command in
    pack) pack "$@" ;;
    run) exec "${PYTHON:-python3}" tests/gpu/run.py "$@" ;;
    report) exec "${PYTHON:-python3}" tests/gpu/report.py "$@" ;;
    *)
        echo "tests/gpu.sh pack | run | report: see the script's first lines" >&2
        exit 2
        ;;
esac
