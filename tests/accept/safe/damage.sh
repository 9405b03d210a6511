# Five planted corruptions of a real step: found and named, never read as bytes, repaired by the same push.
# shellcheck shell=bash

echo "== planted corruptions"
dir=$work/damage
start_server "$dir" --evaluator off
fineline run create lab/run >/dev/null
for step in 512 3000; do fineline push lab/run $step "$(step_dir $step)" >/dev/null; done

# The bytes that plain HTTP gives are the file's first ones, however few.
right_or_nothing() {
    rm -f "$work/got"
    api GET /runs/lab/run/checkpoints/512/files/model.safetensors --fail -o "$work/got" 2>/dev/null || true
    [[ ! -s $work/got ]] || cmp -n "$(stat -c %s "$work/got")" "$work/got" "$(step_dir 512)/model.safetensors"
}

for corruption in object_missing frame_damaged chunk_frame recipe_size condemned_needed; do
    stop_server
    python3 tests/accept/safe/plant.py "$dir" "$(step_dir 512)/model.safetensors" $corruption
    code=0
    "$bin/fineline-registry" scrub --data "$dir" --json >"$work/scrub.json" 2>/dev/null || code=$?
    found=$(python3 -c 'import json, sys; print(*sorted({(p["kind"], *p["checkpoints"]) for p in json.load(open(sys.argv[1]))["problems"]}))' "$work/scrub.json")
    check "$corruption: scrub exits with 1 and names it: $found" test "$code $found" = "1 ('$corruption', 'lab/run@512')"
    port=$(grep -oE '[0-9]+$' <<<"$FINELINE_URL") start_server "$dir" --evaluator off
    rm -rf "$work/pulled"
    if [[ $corruption == condemned_needed ]]; then
        check "$corruption: its bytes are there still" identical lab/run@512 "$(step_dir 512)"
    else
        check "$corruption: a pull fails and leaves no model.safetensors" \
            eval '! timeout 120 "$bin/fineline" pull lab/run@512 "$work/pulled" >/dev/null 2>&1 && test ! -e "$work/pulled/model.safetensors"'
        check "$corruption: plain HTTP gives no wrong byte" \
right_or_nothing
    fi
    sent=$(fineline push lab/run 512 "$(step_dir 512)" --json | field sent_chunks)
    check "$corruption: the same push repairs it with $sent chunks, identical" identical lab/run@512 "$(step_dir 512)"
    check "$corruption: sound" sound "$dir"
done
stop_server
