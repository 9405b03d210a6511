# The same Hub behind a proxy that cuts bodies, slows them, answers 429 and 503, and sends right sizes with wrong bytes.
# Sourced by ingest.sh.
# shellcheck shell=bash

echo "== a Hub that fails"
start_helper faulty-hub "$ingest/hub_server.py" "$work/hub"
# Replaced in one step, so that no half of it is read.
control() { printf '%s' "$1" >"$work/control.new" && mv "$work/control.new" "$work/control"; }
control '{"cut": 0.25, "slow": 0.05, "slow_s": 0.5, "status": {"429": 0.08, "503": 0.1}, "seed": 1}'
start_helper proxy "$ingest/fault_proxy.py" "127.0.0.1:$port_of_helper" --control "$work/control"
proxy=http://127.0.0.1:$port_of_helper
start_registry "$work/faulty"
fineline run create lab/faulty >/dev/null
begun=$SECONDS
fineline source add faulty hf://llm360/amber-small --run lab/faulty --endpoint "$proxy" --settle 1s --watch 10s --select 'ckpt_*' >/dev/null
check "every step comes through cuts, 429 and 503" eventually 240 source_is faulty "ready=4 waiting=1"
for n in 0 1 2 3; do
    check "step $n has the originals' digests" same_files lab/faulty "$n" "$work/hub/llm360/amber-small/ckpt_00$n"
done
echo "    in $((SECONDS - begun)) s; faults that struck: $(faults "$work/proxy.log")"

echo "== right size, wrong bytes"
control '{"wrong": 1.0, "match": "resolve/.*(bin|safetensors)$", "methods": ["GET"], "times": 3, "seed": 2}'
fineline run create lab/lied >/dev/null
fineline source add lied hf://llm360/amber-small --run lab/lied --endpoint "$proxy" --settle 1s --watch 10s --select ckpt_001 >/dev/null
lied() { fineline source show lied >"$work/show" && grep -q 'the source says' "$work/show"; }
# Another run of the namespace holds the files: what is read of them is what it does not hold, which is nothing.
check "what the namespace holds is not read, so nobody can lie about it" eventually 60 source_is lied "ready=1"
fineline run create liar/lied >/dev/null
fineline source remove lied >/dev/null
fineline source add lied hf://llm360/amber-small --run liar/lied --endpoint "$proxy" --settle 1s --watch 10s --select ckpt_001 >/dev/null
check "wrong bytes are found by their digest and not published" eventually 60 lied
grep -m1 'the source says' "$work/show" | cut -c1-200
check "no step is there meanwhile" bash -c "! '$bin/fineline' show liar/lied@1 >/dev/null 2>&1"
check "and read again they are right" eventually 120 source_is lied "ready=1"
check "with the originals' digests" same_files liar/lied 1 "$work/hub/llm360/amber-small/ckpt_001"
stop_server
