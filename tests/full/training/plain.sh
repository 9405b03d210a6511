# The plain PyTorch loop: killed, preempted, ended, begun again; then a server that is stopped.
# shellcheck shell=bash

echo "== plain PyTorch loop"
out=$work/plain
log=$work/plain.log
loop() { python -W error::DeprecationWarning "$scripts/plain_loop.py" "$@" 2>>"$log"; }
at_least() { (($(steps lab/plain | wc -w) >= $1)); }
# One revision a step, and each of them what was saved.
sound_steps() {
    fineline ls "$1" --all --json | python3 -c 'import json, sys
steps = json.load(sys.stdin)
assert all(c["state"] == "ready" and not c["replaced"] for c in steps), steps
assert len({c["step"] for c in steps}) == len(steps) > 0
assert all(c["tokens"] == c["step"] * int(sys.argv[1]) and 0 < c["loss"] < 7 for c in steps), steps' "$3"
    local step
    for step in $(steps "$1"); do
        digest_is "$1@$step" "$2/step-$step/model.safetensors" || return 1
    done
}

python "$scripts/plain_loop.py" lab/plain "$text" "$out" --steps 100000 --save-every 100 2>>"$log" & trainer=$!
check "steps are ready while it trains" eventually 180 at_least 2
kill -KILL "$trainer"
wait "$trainer" 2>/dev/null || true
settled() { [[ $(fineline ls lab/plain --all --json | grep -c '"receiving"') = 0 ]]; }
n_killed=$(steps lab/plain | wc -w)
check "kill -9 with $n_killed steps: what is visible is whole" \
    test "$(fineline ls lab/plain --json | python3 -c 'import json, sys; print({c["state"] for c in json.load(sys.stdin)})')" = "{'ready'}"
python "$scripts/plain_loop.py" lab/plain "$text" "$out" --steps 100000 --save-every 100 2>>"$log" & trainer=$!
check "the same command goes on" eventually 180 at_least $((n_killed + 2))
kill -TERM "$trainer"
code=0
wait "$trainer" || code=$?
trainer=
last=$(find "$out" -maxdepth 1 -name 'step-*' ! -name '*.tmp' | sed 's/.*-//' | sort -n | tail -1)
check "SIGTERM: it saves step $last, pushes it and ends with 0 (it ended with $code)" \
    test "$code $(steps lab/plain | awk '{print $NF}')" = "0 $last"
check "nothing is under way any more" eventually 30 settled
check "each step once, with tokens, loss and its weights digest: $(steps lab/plain)" sound_steps lab/plain "$out" 256
before=$(fineline ls lab/plain --all --json)
: >"$log"
loop lab/plain "$text" "$out" --steps "$last" || true
check "at its end the same command trains and pushes nothing" \
    test "$(fineline ls lab/plain --all --json) $(pushed "$log")" = "$before 0"
fineline wait lab/plain --timeout 300 >/dev/null 2>&1
scored() { fineline scores "$1" --task words_rolling --metric bits_per_byte --json | python3 -c 'import json, sys; print(*[s["step"] for s in json.load(sys.stdin)])'; }
check "each step has its score" test "$(scored lab/plain)" = "$(steps lab/plain)"

echo "== plain PyTorch loop, the registry is stopped (SIGSTOP)"
kill -STOP "$server"
: >"$log"
code=0
loop lab/stopped "$text" "$work/stopped" --steps 20 --save-every 5 --close-timeout 2 || code=$?
kill -CONT "$server"
check "the loop ends and says so (it ended with $code)" test "$code" = 1
grep -E 'is not pushed|no call took' "$log" | sed 's/^/    /'
check "each missing step is named" test "$(grep -cE '^step (5|10|15|20) is not pushed' "$log")" = 4
check "no call of push took 50 ms" calls_fast "$log"
loop lab/stopped "$text" "$work/stopped" --steps 20 --save-every 5
check "once the registry goes on the same command pushes what was missing" test "$(steps lab/stopped)" = "5 10 15 20"
check "each with its weights digest" sound_steps lab/stopped "$work/stopped" 256
