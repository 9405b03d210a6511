#!/usr/bin/env bash
# The demo as a new user runs it: it trains, pushes, is evaluated and ends by itself. Checked against what the registry
# serves: every step has every score, every capability is learned, the page shows what the API says, and nothing is
# left running.
#
#   tests/accept/demo.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --release --locked --quiet -p fineline-registry -p fineline-client
bin=$CARGO_TARGET_DIR/release
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-demo.XXXXXX")
demo=
cleanup() {
    [[ -z $demo ]] || kill "$demo" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"

# until_printed PATTERN SECONDS: waits until the demo has printed it.
until_printed() {
    for _ in $(seq $(($2 * 5))); do
        grep -qE "$1" "$work/out" && return 0
        kill -0 "$demo" 2>/dev/null || break
        sleep 0.2
    done
    tail -5 "$work/out" "$work/err" >&2
    return 1
}

# children: the processes of the demo that are still there.
children() { pgrep -f "fineline-registry (evaluator-worker|demo-train)" -P "${1:-$demo}" || true; }

echo "== the demo to its end"
mkdir "$work/full" && touch "$work/full/file"
check "a folder that is not empty is refused by name" \
    refused "folder .*full. is not empty" "$bin/fineline-registry" demo --data "$work/full"
begun=$SECONDS
"$bin/fineline-registry" demo --keep --data "$work/data" >"$work/out" 2>"$work/err" &
demo=$!
check "the demo ends its training and goes on serving" until_printed 'stays until ctrl-c' 900
cat "$work/out"
echo "  $((SECONDS - begun)) s in all"
check "it counted no overlap" grep -qE '^0 of 400 test prompts occur in the [0-9]{7,} tokens' "$work/out"
FINELINE_URL=$(grep -oE 'http://[0-9.:]+' "$work/out" | head -1)
FINELINE_CONFIG=$work/client.toml
export FINELINE_URL FINELINE_CONFIG
unset FINELINE_TOKEN
fineline scores demo/tiny-llama --csv >"$work/scores.csv"
curl -sS "$FINELINE_URL/runs/demo/tiny-llama" >"$work/page.html"
check "the terminal's table, the page and the API agree, and every capability is learned" \
    python3 tests/accept/demo/learned.py "$work/scores.csv" "$work/out" "$work/page.html"
check "anybody on this machine reads the last step without a token" fineline pull demo/tiny-llama@latest "$work/latest"
check "and nobody writes without one" refused "needs a token" fineline push demo/tiny-llama 99999 "$work/latest"
kill -INT "$demo"
code=0
wait "$demo" || code=$?
check "ctrl-c ends it well (exit $code)" test "$code" = 0

echo "== the demo killed in the middle"
TMPDIR=$work "$bin/fineline-registry" demo >"$work/out" 2>"$work/err" &
demo=$!
check "it trains" until_printed '^ +0 ' 120
pids=$(children)
check "the evaluator and the training job are children ($(wc -w <<<"$pids"))" test "$(wc -w <<<"$pids")" = 2
kill -9 "$demo"
wait "$demo" 2>/dev/null || true
gone() {
    for _ in $(seq 100); do
        # shellcheck disable=SC2086
        ps -o pid= -p ${pids//$'\n'/,} >/dev/null || return 0
        sleep 0.2
    done
    return 1
}
check "both children end with it" gone
finish
