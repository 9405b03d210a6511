# Collection beside everything: pushes, pulls, deletions and an evaluation go on while garbage is collected all the time.
# shellcheck shell=bash

echo "== collection beside pushes, pulls, deletions and evaluations"
start_server "$work/collect" --evaluator cpu --grace 8s
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
fineline run create lab/run >/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/run >/dev/null
# Collects until the file that says enough is there, beside the server's own collections; a line for each.
: >"$work/collected"
(while [[ ! -e $work/enough ]]; do fineline storage gc --json 2>/dev/null >>"$work/collected" || break; done) &
collector=$!
pushed=0 read_back=0 deleted=0
begun=$SECONDS round=0
# The later steps come once and go for good, the others come again, until the grace of what went first is long over.
later="1000 1250 1500 1750 2000 2250 2500 2750"
while ((SECONDS - begun < 30)); do
    round=$((round + 1))
    for step in $later 0 1 2 4 8 16 32 64 128 256 512 750; do
        at=$((round * 100 + pushed))
        fineline push lab/run $at "$(step_dir $step)" >/dev/null && pushed=$((pushed + 1))
        identical lab/run@$at "$(step_dir $step)" && read_back=$((read_back + 1))
        # All but the newest two: pushes of the same bytes meet the collection of those before.
        for old in $(fineline ls lab/run --json | python3 -c 'import json, sys; print(*[c["step"] for c in json.load(sys.stdin)][:-2])'); do
            fineline delete lab/run@"$old" >/dev/null && deleted=$((deleted + 1))
        done
    done
    later=
done
touch "$work/enough"
wait $collector
rounds=$(grep -c '"dry_run": false' "$work/collected")
gone=$(metric fineline_frames_deleted_total)
check "$rounds collections meanwhile, $gone frames were deleted" test "$rounds" -gt 20 -a "$gone" -gt 0
check "$pushed pushes in $round rounds, $read_back of them read back, $deleted deletions, all beside collections" \
    test "$pushed.$read_back.$deleted" = "$((12 * round + 8)).$pushed.$((pushed - 2))"
fineline wait lab/run --timeout 300 >/dev/null
check "the two that are left are evaluated" test "$(fineline ls lab/run --json | python3 -c 'import json, sys; print([c["evaluations"]["done"] for c in json.load(sys.stdin)])')" = "[1, 1]"
check "no chunk was lost: scrub reads every byte" sound "$work/collect"
before=$(store_bytes "$work/collect")
objects_are_live() { test "$(gc waiting.n)" = 0 && gc live.n >"$work/live" && test "$(cat "$work/live")" = "$(find "$work/collect/store" -type f | wc -l)"; }
check "what nothing needs is gone in the end ($before bytes before)" eventually 90 objects_are_live
echo "    $(store_bytes "$work/collect") bytes in $(cat "$work/live") objects are left"
stop_server
check "scrub finds nothing" sound "$work/collect"
