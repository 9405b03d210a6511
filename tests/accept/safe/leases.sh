# A worker is killed at each point of its protocol on a real step; the next one goes on behind it, and the result is that
# of an undisturbed evaluation, once.
# shellcheck shell=bash

echo "== leases under faults"
dir=$work/leases
start_server "$dir" --evaluator off --lease-ttl 1 --retry-back-off 0
printf 'suite: small\ntasks: [%s]\nlimit: 12\n' \
    "$data/lm_eval/tasks/arc_easy.yaml, $data/lm_eval/tasks/sciq.yaml, $data/lm_eval/tasks/piqa.yaml" >"$work/small.yaml"
evaluate=$("$bin/fineline-registry" token create --name w --scope evaluate --runs '*' --data "$dir" 2>/dev/null)
worker() { FINELINE_LOG=error timeout 120 "$bin/fineline-evaluator" --server "$FINELINE_URL" --token "$evaluate" --device cpu --once; }

# queue RUN STEP: a run whose one step waits for the suite.
queue() {
    fineline run create "$1" >/dev/null
    fineline suite apply "$work/small.yaml" --run "$1" >/dev/null
    fineline push "$1" "$2" "$(step_dir 512)" >/dev/null 2>&1
}
# result RUN: everything that was measured, and how often it was said to be done.
result() {
    fineline scores "$1" --json >"$work/scores.json"
    api GET "/runs/$1/events?limit=1000" >"$work/events.json"
    python3 - "$work" <<'PYTHON'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
scores = json.loads((work / "scores.json").read_text())
events = json.loads((work / "events.json").read_text())
print(len({s["evaluation"] for s in scores}), sum(e["kind"] == "evaluation_done" for e in events),
      sorted((s["task"], s["metric"], s["filter"], s["value"], s["stderr"], s["n"]) for s in scores))
PYTHON
}
state_of() { api GET "/evaluations?run=$1" | python3 -c 'import json, sys; e = json.load(sys.stdin)["items"]; print(len(e), e[0]["state"], e[0]["n_expiries"], e[0]["n_failures"])'; }
is_done() { worker >/dev/null 2>&1 || true; [[ $(state_of "$1") == "1 done"* ]]; }

queue calm/run 1
worker
calm=$(result calm/run)
check "an undisturbed evaluation: $(wc -w <<<"$calm") words of result" test "${calm%% [*}" = "1 1"

for point in worker.claimed worker.prepared worker.pulled worker.loaded worker.measuring worker.measured:2 worker.samples_put:3 \
    worker.scores_posted worker.scores_posted:3 worker.completing worker.completed; do
    # A namespace of its own: in one namespace the model would be evaluated once.
    run=${point//[.:_]/-}/run
    queue "$run" 1
    FINELINE_KILL_AT=$point check "$point: the worker died there" killed "$bin/fineline-evaluator" \
        --server "$FINELINE_URL" --token "$evaluate" --device cpu --once
    check "$point: another worker ends it" eventually 60 is_done "$run"
    read -r _ _ expiries _ <<<"$(state_of "$run")"
    [[ $point == worker.completed ]] && wanted=0 || wanted=1
    check "$point: $expiries lease ran out, the same result, told once" \
        eval '((expiries >= wanted)) && test "$(result "$run")" = "$calm"'
done

queue deadly/run 1
is_parked() {
    FINELINE_KILL_AT=worker.claimed worker >/dev/null 2>&1 || true
    [[ $(state_of deadly/run) == "1 parked 5 0" ]]
}
check "an evaluation that kills its worker each time is parked at the fifth" eventually 60 is_parked
api GET "/evaluations?run=deadly/run" | python3 -c 'import json, sys; print("   ", json.load(sys.stdin)["items"][0]["reason"])'
fineline eval retry "$(api GET '/evaluations?run=deadly/run' | python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["id"])')" >/dev/null
check "a retry brings it back and it ends well" eventually 60 is_done deadly/run

queue scratch/run 1
at=(--server "$FINELINE_URL" --token "$evaluate" --device cpu --scratch "$work/scratch")
mkdir "$work/scratch"
FINELINE_KILL_AT=worker.pulled check "a worker with its checkpoint in a folder was killed" killed "$bin/fineline-evaluator" "${at[@]}"
check "its checkpoint is still there" test "$(find "$work/scratch" -name model.safetensors | wc -l)" = 1
FINELINE_LOG=error "$bin/fineline-evaluator" "${at[@]}" &
worker=$!
is_clean() { [[ -z $(ls -A "$work/scratch") && $(state_of scratch/run) == "1 done"* ]]; }
check "the next worker on the machine ends the work and takes away what the first one left" eventually 60 is_clean
kill -TERM "$worker"
check "a worker that waits for work ends at SIGTERM" eventually 5 eval '! kill -0 "$worker" 2>/dev/null'
kill -KILL "$worker" 2>/dev/null || true
check "and ends well" wait "$worker"

stop_server
check "sound" sound "$dir"
