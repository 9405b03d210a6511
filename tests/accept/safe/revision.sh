# Same step, other bytes; same weights at another step; one model evaluated once.
# shellcheck shell=bash

echo "== revisions"
start_server "$work/revision" --evaluator cpu
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
fineline run create lab/run >/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/run >/dev/null
fineline push lab/run 1 "$(step_dir 512)" >/dev/null
old=$(fineline show lab/run@1 --json | field digest)
check "other bytes at the same step are refused with a hint" refused "holds other bytes" fineline push lab/run 1 "$(step_dir 750)"
check "the hint says how" grep -q -- "--replace" "$work/err"
fineline push lab/run 1 "$(step_dir 750)" --replace >/dev/null
check "the step is the new one" identical lab/run@1 "$(step_dir 750)"
check "the old one is read by its digest" identical "lab/run@$old" "$(step_dir 512)"
fineline push lab/run 2 "$(step_dir 750)" >/dev/null 2>"$work/err"
check "the same weights at another step are warned of" grep -q "weights are those of step 1" "$work/err"
fineline wait lab/run --timeout 600 >/dev/null
fineline scores lab/run --json >"$work/scores.json" 2>/dev/null
told=$(python3 -c 'import json, sys
scores = [s for s in json.load(open(sys.argv[1])) if s["metric"] == "bits_per_byte"]
print([(s["step"], s["n_replaced"], s.get("evaluated_step")) for s in scores], len({s["value"] for s in scores}), len({s["evaluation"] for s in scores}))' "$work/scores.json")
check "one evaluation, both steps show it and say so: $told" test "$told" = "[(1, 1, None), (2, 0, 1)] 1 1"
fineline scores lab/run 2>&1 >/dev/null | grep -E "replaced|same model" | sed 's/^/    /'
stop_server
