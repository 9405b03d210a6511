# The real run with its scores: what is kept and moved in the other parts.
# shellcheck shell=bash

echo "== the registry: 21 steps of the real run, two of them evaluated"
dir=$work/data
start_server "$dir" --evaluator cpu --grace 6s
token=$FINELINE_TOKEN
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
fineline run create lab/small --tokens-per-step 2048 >/dev/null
fineline run create lab/scored >/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/scored >/dev/null
steps=()
for path in "$data"/run/step-*; do
    steps+=($((10#${path##*step-})))
    fineline push lab/small "${steps[-1]}" "$path" --tag "real-${steps[-1]}" >/dev/null
done
for step in 512 3000; do fineline push lab/scored $step "$(step_dir $step)" >/dev/null; done
fineline wait lab/scored --timeout 600 >/dev/null
fineline release lab/small@512 v1 >/dev/null
# What came from outside, to the last bit.
python3 -c 'import json
print(json.dumps([{"task": f"t{n}", "metric": "acc", "value": (0.1 + 0.2) / (n + 1), "stderr": 5e-324} for n in range(50)]))' >"$work/scores.json"
fineline scores post lab/small@3000 "$work/scores.json" --harness other >/dev/null
check "$(fineline scores lab/scored --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))') scores of evaluations, 50 from outside" \
    test "$(fineline scores lab/small --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" = 50
