# What a registry looks like in the middle of its work: a worker elsewhere is half through, one step waits for it, another
# for a worker that there is none of.
# shellcheck shell=bash

echo "== work under way"
[[ -z $server ]] || stop_server
start_server "$work/data" --evaluator cpu --lease-ttl 3600

# The same model by another architecture's name, which our worker does not take.
for name in MistralForCausalLM Qwen3ForCausalLM; do
    cp -r "$data/models/stories260K" "$work/$name"
    python3 - "$work/$name/config.json" "$name" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
config["architectures"] = [sys.argv[2]]
json.dump(config, open(sys.argv[1], "w"))
PY
done
fineline run create lab/others >/dev/null
fineline suite apply "$work/knowledge.yaml" --run lab/others >/dev/null
fineline push lab/others 1000 "$work/MistralForCausalLM" >/dev/null
fineline push lab/others 2000 "$work/Qwen3ForCausalLM" >/dev/null

api POST /evaluations/claim -H 'Content-Type: application/json' -d '{"worker": "gpu-node-3", "device": "cuda:0", "memory_bytes": 80000000000,
    "dtypes": ["float32", "bfloat16"], "architectures": ["MistralForCausalLM"]}' >"$work/lease"
lease=$(field token <"$work/lease")
claimed=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["evaluation"]["id"])' <"$work/lease")
api POST "/evaluations/$claimed/heartbeat" -H "Fineline-Lease: $lease" -H 'Content-Type: application/json' \
    -d '{"task": "local_piqa", "n_done": 412, "n_total": 700}' >/dev/null
check "a worker elsewhere is half through" test "$(status)" = 200
