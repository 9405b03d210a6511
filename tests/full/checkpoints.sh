#!/usr/bin/env bash
# Released checkpoints as the evaluator reads them, against the libraries that wrote them: the ids of 10,000 hard texts by
# SentencePiece models of many settings, special tokens and decoding; logits of LLaMA's shapes, and of one model in every
# container that PyTorch and transformers save; lm-eval's answers on one with a tokenizer.model alone.
#
#   tests/full/checkpoints.sh             says what is missing and ends well
#   tests/full/checkpoints.sh --install   installs it first (7 GB in the cache: torch's wheel brings CUDA along)
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
venv=$cache/venv-checkpoints
wanted=$PWD/tests/full/checkpoints/requirements.txt
has_all() { [[ -f $venv/requirements.txt ]] && cmp -s "$wanted" "$venv/requirements.txt"; }
if ! has_all && [[ ${1:-} == --install ]]; then
    mkdir -p "$cache"
    free_gib=$(($(df --output=avail -k "$cache" | tail -1) >> 20))
    if ((free_gib < 12)); then
        echo "skipped: full/checkpoints: sentencepiece, torch and lm_eval need 7 GB and $free_gib GiB are free"
        exit 0
    fi
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-cache-dir --no-compile -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
elif ! has_all; then
    echo "skipped: full/checkpoints: there is no sentencepiece, torch and lm_eval in $venv"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2
export PYTHONPYCACHEPREFIX=$cache/pycache-checkpoints
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-checkpoints.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
cargo build --locked --quiet -p fineline-evaluator --examples
programs=$CARGO_TARGET_DIR/debug/examples
scripts=tests/full/checkpoints
python=$venv/bin/python
data=../shared/data
[[ -d $data ]] || data=
status=0

echo "== tokens"
"$python" "$scripts/corpus.py" docs >"$work/texts"
"$python" "$scripts/sentencepieces.py" docs "$work/models"
"$python" "$scripts/compare_tokens.py" "$programs/tokens" "$work/texts" "$work/models" evaluator/tests/sentencepiece \
    ${data:+"$data"} 2>"$work/err" || { status=1; tail -20 "$work/err" >&2; }

echo "== logits"
"$python" "$scripts/compare_logits.py" "$programs/logits" evaluator/tests/shapes.json 2>"$work/err" ||
    { status=1; tail -20 "$work/err" >&2; }

echo "== answers"
"$python" "$scripts/compare_answers.py" "$programs/measure" "$work/texts" "$work/models/llama/tokenizer.model" 2>"$work/err" ||
    { status=1; tail -20 "$work/err" >&2; }
exit $status
