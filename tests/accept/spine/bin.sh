# The steps stored as .bin: they share their bytes and their weights digest with the .safetensors form, and are scored
# alike on a fresh data folder.
# shellcheck shell=bash

echo "== the .bin form"
[[ -z $server ]] || stop_server
start_server "$work/bin" --evaluator cpu
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
fineline run create lab/small >/dev/null
fineline run create lab/bin >/dev/null
for suite in "$work"/suites/run-*.yaml; do fineline suite apply "$suite" --run lab/bin >/dev/null; done
for step in 16 512 3000; do
    name=step-$(printf %06d "$step")
    fineline push lab/small "$step" "$data/run/$name" >/dev/null
    fineline push lab/bin "$step" "$data/run_bin/$name" --json >"$work/push.json"
    check "step $step as .bin shares its bytes with .safetensors" python3 - "$work/push.json" "$data/run_bin/$name" <<'PY'
import json, pathlib, sys
push = json.load(open(sys.argv[1]))
bin_bytes = sum(p.stat().st_size for p in pathlib.Path(sys.argv[2]).glob("*.bin"))
shared = 1 - (push["size_bytes"] - push["held_bytes"]) / bin_bytes
print(f"    {shared:.4f} of the .bin bytes are shared (at least 0.99 asked)")
sys.exit(shared < 0.99)
PY
    fineline pull "lab/bin@$step" "$work/pulled" >/dev/null
    check "step $step as .bin comes back byte-identical" diff -r "$data/run_bin/$name" "$work/pulled"
    rm -rf "$work/pulled"
    fineline pull "lab/bin@$step" "$work/pulled" --as safetensors >/dev/null
    check "step $step as .bin comes as safetensors with the tensors of the .safetensors form" \
        python3 - "$work/pulled" "$data/run/$name" <<'PY'
import json, pathlib, sys

def tensors(folder):
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        file = path.read_bytes()
        begin = 8 + int.from_bytes(file[:8], "little")
        for name, entry in json.loads(file[8:begin]).items():
            if name != "__metadata__":
                first, end = (begin + offset for offset in entry["data_offsets"])
                found[name] = (entry["dtype"], entry["shape"], file[first:end])
    return found

pulled, expected = map(tensors, sys.argv[1:])
sys.exit(not pulled or pulled != expected or any(pathlib.Path(sys.argv[1]).glob("*.bin*")))
PY
    rm -rf "$work/pulled"
    weights() { fineline show "$1@$step" --json | field weights_digest; }
    check "step $step has one weights digest in both forms" test "$(weights lab/bin)" = "$(weights lab/small)"
done
check "wait lab/bin" fineline wait lab/bin --timeout 1800
check "every sample of every task agrees with lm-eval from .bin" \
    python3 tests/accept/spine/parity.py "$data/lm_eval/reference" "$FINELINE_URL" \
    lab/bin@512=run-step-000512 lab/bin@3000=run-step-003000
stop_server
