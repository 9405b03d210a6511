# Three ranks push the shards of a real step at once, one of them killed on the way; one commit. What can't be evaluated
# says why; a late tokenizer and a suite bound late bring the scores.
# shellcheck shell=bash

echo "== many ranks, late tokenizer, back-fill"
dir=$work/ranks
start_server "$dir" --evaluator cpu
fineline run create lab/run >/dev/null
source=$data/run_bin/step-000512
for rank in 1 2 3; do
    mkdir -p "$work/rank-$rank"
    cp "$source/pytorch_model-0000$rank-of-00003.bin" "$work/rank-$rank/"
    cp "$source/config.json" "$work/rank-$rank/"
done
cp "$source"/*.index.json "$work/rank-1/"
rank() { fineline push lab/run 512 "$work/rank-$1" --session job-7 --json; }
(FINELINE_KILL_AT=push.chunk_sent:3 rank 2 >"$work/out-2" 2>/dev/null || echo $? >"$work/code-2") & second=$!
rank 1 >"$work/out-1" 2>/dev/null & first=$!
rank 3 >"$work/out-3" 2>/dev/null & third=$!
wait $first && wait $third
wait $second 2>/dev/null || true
check "two ranks ended, one was killed on its way" eval 'test -s "$work/out-1" && test -s "$work/out-3" && test "$(cat "$work/code-2")" = 137'
check "nothing is visible before the commit" test "$(fineline ls lab/run --json)" = "[]"
check "a commit that lacks a rank's file is refused" refused "are wanted" fineline push lab/run 512 --session job-7 --commit --files 5
rank 2 >"$work/out-2" 2>/dev/null
fineline push lab/run 512 --session job-7 --commit --files 5 >/dev/null 2>"$work/err"
mkdir "$work/whole"
for rank in 1 2 3; do cp "$work/rank-$rank"/* "$work/whole/"; done
check "three ranks, one commit: 5 files, identical" identical lab/run@512 "$work/whole"
why=$(fineline show lab/run@512 --json | field not_evaluable)
check "it says why it can't be evaluated: $why" grep -q tokenizer <<<"$why"

mkdir "$work/trainer"
printf 'x' >"$work/trainer/__0_0.distcp"; printf 'y' >"$work/trainer/.metadata"; printf 'z' >"$work/trainer/optimizer.pt"
fineline push lab/run 513 "$work/trainer" >/dev/null 2>&1
check "a sharded trainer state is stored: $(fineline show lab/run@513 --json | field not_evaluable | cut -c1-80)" \
    identical lab/run@513 "$work/trainer"

python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites" 2>/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/run --backfill all --yes >/dev/null 2>&1
check "nothing can be evaluated yet, and nothing is queued" test "$(api GET '/evaluations?run=lab/run' | field items)" = "[]"
mkdir "$work/tokenizer"
cp "$(step_dir 512)"/tokenizer* "$(step_dir 512)"/special_tokens_map.json "$work/tokenizer/"
fineline run create lab/tokenizer >/dev/null
fineline push lab/tokenizer 0 "$work/tokenizer" >/dev/null 2>&1
fineline run tokenizer lab/run lab/tokenizer@0 >/dev/null
fineline wait lab/run --timeout 600 >/dev/null 2>&1
late=$(fineline scores lab/run --json | python3 -c 'import json, sys; print(*[s["value"] for s in json.load(sys.stdin) if s["metric"] == "bits_per_byte"])')
fineline run create lab/own >/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/own >/dev/null 2>&1
fineline push lab/own 512 "$(step_dir 512)" >/dev/null
fineline wait lab/own --timeout 600 >/dev/null 2>&1
own=$(fineline scores lab/own --json | python3 -c 'import json, sys; print(*[s["value"] for s in json.load(sys.stdin) if s["metric"] == "bits_per_byte"])')
check "with the run's default tokenizer it is evaluated: $late bits per byte, as with its own: $own" test -n "$late" -a "$late" = "$own"

for step in 750 1000; do fineline push lab/own $step "$(step_dir $step)" >/dev/null 2>&1; done
printf 'suite: late\ntasks: [%s]\nlimit: 5\n' "$data/lm_eval/tasks/sciq.yaml" >"$work/late.yaml"
planned() { fineline suite apply "$work/late.yaml" --run lab/own --backfill "$1" --dry-run --json | field n_to_queue; }
counts="$(planned all) $(planned newest=2) $(planned coarse)"
check "a suite bound late states its counts before it starts (all, newest 2, coarse): $counts" test "$counts" = "3 2 3"
fineline suite apply "$work/late.yaml" --run lab/own --backfill newest=2 --yes >/dev/null 2>&1
fineline wait lab/own --timeout 600 >/dev/null 2>&1
steps=$(fineline scores lab/own --task local_sciq --metric acc --json | python3 -c 'import json, sys; print(*[s["step"] for s in json.load(sys.stdin)])')
check "the newest two were evaluated: $steps" test "$steps" = "750 1000"
stop_server
check "sound" sound "$dir"
