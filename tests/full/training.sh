#!/usr/bin/env bash
# The scripts of docs/training on the real libraries: a plain PyTorch loop, transformers' Trainer, FSDP on two ranks. They
# train a tiny LLaMA on a text, push to a real server, are evaluated, killed, stopped, begun again, and meet a server that
# does not answer.
#
#   tests/full/training.sh             says what is missing and ends well
#   tests/full/training.sh --install   installs it first (6 GB in the cache: torch's wheel brings CUDA along)
#
# FINELINE_BIN=DIR takes the programs there instead of building them.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
venv=$cache/venv-training
wanted=$root/tests/full/training/requirements.txt
has_all() { [[ -f $venv/requirements.txt ]] && cmp -s "$wanted" "$venv/requirements.txt"; }
if ! has_all && [[ ${1:-} == --install ]]; then
    free_gib=$(($(df --output=avail -k "$cache/.." | tail -1) >> 20))
    if ((free_gib < 12)); then
        echo "skipped: full/training: torch and transformers need 6 GB and $free_gib GiB are free"
        exit 0
    fi
    mkdir -p "$cache"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-cache-dir --no-compile -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
elif ! has_all; then
    echo "skipped: full/training: there is no torch and transformers in $venv"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-training.XXXXXX")
bin=$work/bin
mkdir "$bin"
if [[ -z ${FINELINE_BIN:-} ]]; then
    cargo build --locked --quiet -p fineline-registry -p fineline-client
    FINELINE_BIN=$CARGO_TARGET_DIR/debug
fi
ln -s "$FINELINE_BIN"/fineline{,-registry} "$bin"
server=
stalled=
trainer=
cleanup() {
    [[ -z $trainer ]] || kill -KILL "$trainer" 2>/dev/null || true
    [[ -z $stalled ]] || kill "$stalled" 2>/dev/null || true
    [[ -z $server ]] || { kill -CONT "$server" && kill "$server"; } 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
# shellcheck source=tests/accept/training/common.sh
source "$root/tests/accept/training/common.sh"
# Trained on this project's own words. Neither library may ask a network for anything.
text=$root/docs/ARCHITECTURE.md
export PATH=$venv/bin:$bin:$PATH OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# Compiling torch and transformers at each of the many starts takes longer than all else.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$cache/pycache-training
scripts=$root/docs/training
versions=$(python -c 'import torch, transformers; print(f"torch {torch.__version__}, transformers {transformers.__version__}")')
echo "== $versions"
check "each snippet of docs/TRAINING.md stands in a file that is run" python3 tests/accept/training/snippets.py
start_server "$work/data" --evaluator cpu
python3 tests/full/training/suite.py "$text" "$work/suite"
for run in plain trainer fsdp stopped; do
    fineline run create "lab/$run" >/dev/null
    fineline suite apply "$work/suite/suite.yaml" --run "lab/$run" >/dev/null 2>&1
done
for part in plain trainer ranks; do
    # shellcheck source=/dev/null
    source "$root/tests/full/training/$part.sh"
done
stop_server
finish
