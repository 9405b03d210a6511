# The 21 steps of the real run, and stories260K: pushed, evaluated by themselves, compared with lm-eval, pulled back.
# shellcheck shell=bash

echo "== the real run: push, evaluation by itself, parity, pull"
start_server "$work/run" --evaluator cpu
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
fineline run create lab/small --tokens-per-step 2048 >/dev/null
fineline run create lab/reference --tokens-per-step 2048 >/dev/null
fineline run create lab/stories >/dev/null
fineline suite apply "$work/suites/rolling.yaml" --run lab/small >/dev/null
for suite in "$work"/suites/run-*.yaml; do fineline suite apply "$suite" --run lab/reference >/dev/null; done
for suite in "$work"/suites/stories-*.yaml; do fineline suite apply "$suite" --run lab/stories >/dev/null; done
mkdir -p "$work/refused"
sed "s|../../|$(realpath "$data")/|; s/utils_copa.doc_to_text/utils_copa.shout/" "$data/lm_eval/tasks/copa.yaml" >"$work/refused/copa.yaml"
printf 'suite: refused\ntasks: [%s]\n' "$work/refused/copa.yaml" >"$work/refused.yaml"
check "a task with Python that is not built in is refused by name" \
    refused "local_copa.*utils_copa.shout" fineline suite apply "$work/refused.yaml" --run lab/small

begun=$SECONDS
for dir in "$data"/run/step-*; do
    step=$((10#${dir##*step-}))
    fineline push lab/small "$step" "$dir" --tag "real-$step" >/dev/null
done
for step in 512 3000; do
    fineline push lab/reference "$step" "$data/run/step-$(printf %06d "$step")" >/dev/null
done
fineline push lab/stories 0 "$data/models/stories260K" >/dev/null
echo "  24 pushes in $((SECONDS - begun)) s"

moved() { metric fineline_chunk_received_bytes_total; }
before=$(moved)
fineline push lab/small 3000 "$data/run/step-003000" >/dev/null
check "the same push again moves nothing ($before bytes received before and after)" test "$before" = "$(moved)"

for run in lab/small lab/reference lab/stories; do
    check "wait $run" fineline wait "$run" --timeout 3000
done
echo "  pushed and evaluated in $((SECONDS - begun)) s"
check "every sample of every task agrees with lm-eval" \
    python3 tests/accept/spine/parity.py "$data/lm_eval/reference" "$FINELINE_URL" \
    lab/reference@512=run-step-000512 lab/reference@3000=run-step-003000 lab/stories@0=stories260K
fineline scores lab/small --json >"$work/scores.json"
check "bits_per_byte falls strictly over all 21 steps" python3 tests/accept/spine/falls.py "$work/scores.json" 21

identical=0
for dir in "$data"/run/step-*; do
    step=$((10#${dir##*step-}))
    fineline pull "lab/small@$step" "$work/pulled" >/dev/null
    diff -r "$dir" "$work/pulled" && identical=$((identical + 1))
    rm -rf "$work/pulled"
done
check "21 of 21 steps pulled back are byte-identical ($identical)" test "$identical" = 21

curled=0
for path in "$data"/run/step-000512/*; do
    name=$(basename "$path")
    api GET "/runs/lab/small/checkpoints/real-512/files/$name" | cmp - "$path" && curled=$((curled + 1))
done
check "every file of step 512 by plain curl ($curled)" test "$curled" = "$(find "$data/run/step-000512" -type f | wc -l)"
check "the server's scrub is clean" "$bin/fineline-registry" scrub --data "$work/run"
