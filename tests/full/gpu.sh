#!/usr/bin/env bash
# The script for cards (tests/gpu.sh) without a card: all of its parts on the CPU with tiny shapes, so that it works when there is one;
# and a part whose answers were altered falls short.
#
#   tests/full/gpu.sh      PYTHON=...  one that has lm_eval; else what tests/full/checkpoints.sh --install made
#   OUT=DIR                keeps the results
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
export PYTHON=${PYTHON:-$cache/venv-checkpoints/bin/python}
[[ -d ../shared/data/lm_eval ]] || { echo "skipped: full/gpu: there is no ../shared/data beside the clone"; exit 0; }
version=$(tr -d '\r' <tests/full/checkpoints/requirements.txt | sed -n 's/^lm_eval==//p')
has=$("$PYTHON" -c 'from importlib.metadata import version; print(version("lm_eval"))' 2>/dev/null) || has=none
[[ $has == "$version" ]] ||
    { echo "skipped: full/gpu: lm_eval is $has and not $version: tests/full/checkpoints.sh --install"; exit 0; }
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-gpu.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PYTHONPYCACHEPREFIX=$cache/pycache-checkpoints
out=${OUT:-$work/out}
tests/gpu.sh pack --cpu "$work/pack"
tests/gpu.sh run "$work/pack" "$out" --device cpu --tiny --again --work "$work/run"

# A check that can't fail says nothing.
echo "== one answer altered"
mv "$work/run/bin/measure" "$work/run/bin/measure-itself"
cat >"$work/run/bin/measure" <<'ALTERED'
#!/usr/bin/env bash
"$(dirname "$0")/measure-itself" "$@" | if [[ $* == *--by-tables*--alone* || $* == *--alone*--by-tables* ]]; then
    sed '7s/^\[-\([0-9]*\)\./[-1\1./'
else
    cat
fi
ALTERED
chmod +x "$work/run/bin/measure"
if tests/gpu.sh run "$work/pack" "$work/altered" correct --device cpu --tiny --work "$work/run" >"$work/altered.log"; then
    echo "an altered answer went unnoticed" >&2
    exit 1
fi
grep SHORT "$work/altered.log"
