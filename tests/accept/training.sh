#!/usr/bin/env bash
# docs/training/fineline_push.py in a loop, with the real client against a real server and against stalled ones. The
# trainer is a FAKE (no torch, nothing learned); tests/full/training.sh has the real ones.
#
#   tests/accept/training.sh        FINELINE_BIN=DIR takes the programs there instead of building them
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
export PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-training.XXXXXX")
bin=$work/bin
mkdir "$bin"
if [[ -n ${FINELINE_BIN:-} ]]; then
    ln -s "$FINELINE_BIN"/{registry,client}-under-test "$bin"
else
    # The real programs, linked with the fail points at which some of this kills them.
    cargo build --locked --quiet -p fineline-tests --bins
    ln -s "$CARGO_TARGET_DIR"/debug/{registry,client}-under-test "$bin"
fi
ln -s registry-under-test "$bin/fineline-registry"
ln -s client-under-test "$bin/fineline"
server=
stalled=
cleanup() {
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

# The client with a token that is seen nowhere but in the environment.
train() { PATH=$bin:$PATH python3 -W error tests/accept/training/fake_trainer.py "$@"; }

echo "== a FAKE trainer (standard library only, nothing is learned), the real module, the real client"
check "the module without a network" unit_tests
check "each snippet of docs/TRAINING.md stands in a file that is run" python3 tests/accept/training/snippets.py
start_server "$work/data" --evaluator off
fineline run create lab/fake >/dev/null

train lab/fake "$work/a" --rotate >"$work/told" 2>"$work/log" || true
check "6 steps while the trainer keeps only its last folder: $(cat "$work/told")" test "$(steps lab/fake)" = "1 2 3 4 5 6"
check "no call took 50 ms" called_fast "$work/told"
facts() { fineline show "$1" --json | python3 -c 'import json, sys; c = json.load(sys.stdin); print(c["state"], c["tokens"], c["loss"])'; }
check "tokens and loss are there: $(facts lab/fake@4)" test "$(facts lab/fake@4)" = "ready 4000 1.25"
check "the weights digest is that of the saved file" digest_is lab/fake@6 "$work/a/checkpoint-6/model.safetensors"
check "the optimizer stayed at home" test "$(fineline ls lab/fake@6 --json | grep -c optimizer)" = 0
check "the spool is empty" empty "$work/a/spool"
sessions=$(pushed "$work/log")
before=$(fineline ls lab/fake --step-max 6 --all --json)
train lab/fake "$work/a" --rotate --steps 8 >"$work/told" 2>"$work/log" || true
check "it goes on at step 7 and pushes 2 more, not $sessions again" test "$(pushed "$work/log") $(steps lab/fake)" = "2 1 2 3 4 5 6 7 8"
rm "$work/a/last-step" && rm -r "$work/a"/checkpoint-*
train lab/fake "$work/a" --steps 6 >"$work/told" 2>/dev/null || true
after=$(fineline ls lab/fake --step-max 6 --all --json)
check "who trains them again with the same bytes changes nothing" test "$before" = "$after"
train lab/fake "$work/other" --seed 1 --steps 2 >"$work/told" 2>/dev/null || true
check "other bytes for a step are refused by name and given up" \
    test "$(field missing <"$work/told") $(fineline ls lab/fake --step-max 6 --all --json)" = "[1, 2] $before"
check "the spool is empty" empty "$work/other/spool"
train lab/fake "$work/replaced" --seed 1 --steps 1 --replace >"$work/told" 2>/dev/null || true
check "and with replace they are a new revision" digest_is lab/fake@1 "$work/replaced/checkpoint-1/model.safetensors"

echo "== a server that takes connections and never answers"
good=$FINELINE_URL
python3 tests/accept/training/stalled.py "$work/address" & stalled=$!
check "it listens" eventually 20 test -s "$work/address"
stall_url=$(cat "$work/address")
# compare RUN URL: trains without pushes and with, against a server that does not answer; gives $out. A machine that is busy
# with other things can hold up any call, so what is short is looked at again, twice.
compare() {
    local try
    for try in 1 2 3; do
        out=$work/$(basename "$1")-$try
        train lab/none "$out-alone" --no-push --steps 8 >"$work/alone" || return 1
        FINELINE_URL=$2 train "$1" "$out" --steps 8 --rotate --limit 30 --close-timeout 1 >"$work/told" 2>/dev/null && return 1
        echo "    without pushes $(field loop_s <"$work/alone") s, with $(field loop_s <"$work/told") s, longest call" \
            "$(field longest_call_ms <"$work/told") ms"
        called_fast "$work/told" && no_longer "$work/alone" "$work/told" && break
    done
    return 0
}
fineline run create lab/stall >/dev/null
check "the loop ends, with pushes as without" compare lab/stall "$stall_url"
check "and takes no longer (within half as much again and 1 s)" no_longer "$work/alone" "$work/told"
check "no call took 50 ms" called_fast "$work/told"
check "each step that is missing is told by name at the end" test "$(field missing <"$work/told")" = "[1, 2, 3, 4, 5, 6, 7, 8]"
echo "    $(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["told"][0])' "$work/told")"
kill "$stalled"
wait "$stalled" 2>/dev/null || true
stalled=
FINELINE_URL=$good train lab/stall "$out" --steps 8 --rotate >"$work/told" 2>/dev/null || true
check "the same command with a server that answers pushes what was missing" test "$(steps lab/stall)" = "1 2 3 4 5 6 7 8"
check "and trained nothing" test "$(field n_steps <"$work/told")" = 0

echo "== the real server, stopped (SIGSTOP)"
fineline run create lab/stop >/dev/null
kill -STOP "$server"
check "the loop ends, with pushes as without" compare lab/stop "$good"
check "and takes no longer (within half as much again and 1 s)" no_longer "$work/alone" "$work/told"
check "no call took 50 ms" called_fast "$work/told"
check "each step that is missing is told by name at the end" test "$(field missing <"$work/told")" = "[1, 2, 3, 4, 5, 6, 7, 8]"
kill -CONT "$server"
train lab/stop "$out" --steps 8 >"$work/told" 2>/dev/null || true
check "once it goes on the same command pushes what was missing" test "$(steps lab/stop)" = "1 2 3 4 5 6 7 8"

echo "== killed on the way"
fineline run create lab/killed >/dev/null
FINELINE_KILL_AT=push.file_added:1 train lab/killed "$work/d" --steps 1 --close-timeout 20 >"$work/told" 2>/dev/null || true
check "a push that dies before its commit leaves nothing visible" \
    test "$(fineline ls lab/killed --json) $(fineline ls lab/killed --all --json | grep -c receiving)" = "[] 1"
check "and nothing to pull" refused "receiving|no checkpoint" fineline pull lab/killed@1 "$work/half"
kill -STOP "$server"
train_here() { PATH=$bin:$PATH exec python3 tests/accept/training/fake_trainer.py "$@"; }
train_here lab/killed "$work/d" --steps 3 >/dev/null 2>&1 & trainer=$!
three_wait() { [[ $(find "$work/d/spool" -mindepth 1 -maxdepth 1 -name '0*' | wc -l) = 3 ]]; }
check "three steps wait" eventually 20 three_wait
# The trainer alone; the command that it runs may outlive it and harms nothing.
kill -KILL "$trainer"
{ wait "$trainer"; } 2>/dev/null || true
kill -CONT "$server"
train lab/killed "$work/d" --steps 3 >"$work/told" 2>/dev/null || true
check "who is killed with steps in the spool loses none" test "$(steps lab/killed)" = "1 2 3"
check "each whole: the weights digest is that of the saved file" digest_is lab/killed@2 "$work/d/checkpoint-2/model.safetensors"
check "the spool is empty" empty "$work/d/spool"

echo "== two ranks"
fineline run create lab/ranks >/dev/null
part() { train lab/ranks "$work/rank-$1" --steps 2 --rank "$1" --session job-1 --files 3; }
rank_1() {
    PATH=$bin:$PATH python3 -W error - "$work" <<'PY'
import sys
from pathlib import Path
sys.path.insert(0, "docs/training")
from fineline_push import Pusher
work = Path(sys.argv[1])
pusher = Pusher("lab/ranks", spool=work / "rank-1/spool", rank=1)
for step in (1, 2):
    folder = work / f"rank-1/{step}"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text(f"of rank 1 at step {step}")
    pusher.push(step, folder, session="job-1")
sys.exit(1 if pusher.close(60) else 0)
PY
}
part 0 >"$work/told" 2>/dev/null & first=$!
begun() { [[ $(fineline ls lab/ranks --all --json) != "[]" ]]; }
check "the first rank has begun" eventually 20 begun
check "a rank alone publishes nothing" test "$(fineline ls lab/ranks --json)" = "[]"
check "the other rank pushes its part" rank_1
check "and the first one commits when all have pushed" wait "$first"
check "two steps of 3 files" test "$(steps lab/ranks) $(fineline ls lab/ranks@2 --json | grep -c '"path"')" = "1 2 3"
stop_server
finish
