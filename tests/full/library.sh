#!/usr/bin/env bash
# The library's tasks against lm-eval's own on the real evaluation sets: requests, targets, filters, metrics, scores, standard
# errors and groups, with answers that follow from a hash of what is asked. Data go to ours as JSON lines, arrays, Parquet and
# the Hub's shards.
#
#   tests/full/library.sh [NAME...]     says what is missing and ends well; PYTHON names an interpreter that has lm_eval, else
#                                       it is the one that tests/full/checkpoints.sh --install makes
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
python=${PYTHON:-$cache/venv-checkpoints/bin/python}
version=$(tr -d '\r' <tests/full/checkpoints/requirements.txt | sed -n 's/^lm_eval==//p')
if ! has=$("$python" -c 'from importlib.metadata import version; print(version("lm_eval"))' 2>/dev/null); then
    echo "skipped: full/library: there is no lm_eval for $python"
    exit 0
fi
if [[ $has != "$version" ]]; then
    echo "skipped: full/library: lm_eval is $has and not $version"
    exit 0
fi
data=$(cd .. && pwd)/shared/data
if [[ ! -d $data/eval ]]; then
    echo "skipped: full/library: there is no ../shared/data beside the clone"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}" PYTHONPYCACHEPREFIX=$cache/pycache-checkpoints
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-library.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
cargo build --locked --quiet -p fineline-evaluator --example library
names=()
for name in "$@"; do [[ $name == --* ]] || names+=("$name"); done
"$python" tests/full/library/compare_library.py "$CARGO_TARGET_DIR/debug/examples/library" "$data/eval" "${names[@]}" \
    2>"$work/err" || { tail -20 "$work/err" >&2; exit 1; }
