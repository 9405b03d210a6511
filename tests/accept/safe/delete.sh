# Deletion and retention on the whole run: names are safe, scores stay, what is left is whole, bytes come back.
# shellcheck shell=bash

echo "== delete and retain"
start_server "$work/delete" --evaluator off --grace 4s
fineline run create lab/run --tokens-per-step 2048 >/dev/null
steps=()
for dir in "$data"/run/step-*; do
    steps+=($((10#${dir##*step-})))
    fineline push lab/run "${steps[-1]}" "$dir" >/dev/null
done
all=$(store_bytes "$work/delete")
fineline tag lab/run@128 good >/dev/null
fineline release lab/run@512 v1 >/dev/null
echo '[{"task":"t","metric":"acc","value":0.5}]' >"$work/score.json"
fineline scores post lab/run@64 "$work/score.json" --harness other >/dev/null

check "a tagged step is refused" refused "bears .good." fineline delete lab/run@128
check "a released step is refused" refused "bears .v1." fineline delete lab/run@512
freed=$(fineline delete lab/run@64 --dry-run --json | field freed_bytes)
fineline delete lab/run@64 >/dev/null
check "a deleted step is gone" refused "there is no checkpoint" fineline show lab/run@64
check "its score stays" test "$(fineline scores lab/run --json | python3 -c 'import json, sys; print([(s["step"], s["deleted"]) for s in json.load(sys.stdin)])')" = "[(64, True)]"
check "its $freed bytes come back after the grace" \
    eventually 60 eval '(( $(fineline storage gc >/dev/null; store_bytes "$work/delete") == all - freed ))'

fineline run retain lab/run --keep-last 3 --keep-every 1000 --dry-run --json >"$work/would.json"
would=$(field freed_bytes <"$work/would.json")
n=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["checkpoints"]))' "$work/would.json")
check "a dry run deletes nothing" test "$(fineline ls lab/run --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" = 20
fineline run retain lab/run --keep-last 3 --keep-every 1000 >/dev/null
left=$(fineline ls lab/run --json | python3 -c 'import json, sys; print(*[c["step"] for c in json.load(sys.stdin)])')
check "the rule leaves the newest 3, every 1000th, the tagged and the released: $left" test "$left" = "0 128 512 1000 2000 2500 2750 3000"
check "$n steps of $would bytes come back" \
    eventually 60 eval '(( $(fineline storage gc >/dev/null; store_bytes "$work/delete") == all - freed - would ))'
whole=0
for step in $left; do identical "lab/run@$step" "$(step_dir "$step")" && whole=$((whole + 1)); done
check "$whole of 8 steps that are left are identical" test "$whole" = 8
check "the run goes only by force" refused "bears|has tags" fineline run delete lab/run
fineline run delete lab/run --force >/dev/null
check "all bytes come back ($(store_bytes "$work/delete") before)" \
    eventually 60 eval '(( $(fineline storage gc >/dev/null; store_bytes "$work/delete") == 0 ))'
stop_server
check "scrub finds nothing" sound "$work/delete"
