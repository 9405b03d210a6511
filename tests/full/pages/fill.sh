# Fills a registry as a lab does in its first week: steps of the real run with their curves, scores of another
# harness beside ours, a tag, a run whose model nobody takes, one that fails, names as long as they may be.
# shellcheck shell=bash

echo "== filling a registry"
start_server "$work/data" --evaluator cpu --lease-ttl 3600
python3 tests/full/pages/suites.py "$data/lm_eval" "$work"
fineline run create lab/small-llama --parameters 1895840 --architecture LlamaForCausalLM --tokens-per-step 2048 \
    --data-mix "26 public-domain novels" --strategy "AdamW, 3e-3, warm-up 100, cosine" \
    --description "LLaMA, 4 layers, d = 160, vocabulary 2048: the run that the figures are from." >/dev/null
fineline suite apply "$work/language.yaml" --run 'lab/small-*' >/dev/null
fineline suite apply "$work/knowledge.yaml" --run 'lab/small-*' >/dev/null
for step in 0 1 4 16 64 256 512 1000 1500 2000 2500 3000; do
    fineline push lab/small-llama "$step" "$data/run/step-$(printf %06d "$step")" >/dev/null
done
for step in 512 3000; do
    fineline scores post "lab/small-llama@$step" "$work/lm-eval-$step.json" --harness lm-eval --harness-version 0.4.13 >/dev/null
done
fineline tag lab/small-llama@3000 best/bits-per-byte >/dev/null
fineline release lab/small-llama@3000 v1.0 --notes "The end of the cosine." >/dev/null

# One with names as long as they may be.
fineline run create "$long/$long" >/dev/null
fineline push "$long/$long" 1 "$data/models/stories260K" >/dev/null
fineline scores post "$long/$long@1" "$work/long.json" --harness lm-eval >/dev/null
fineline run create lab/empty >/dev/null

# A config that lies about the vocabulary: no try can succeed.
cp -r "$data/models/stories260K" "$work/broken"
sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 513/' "$work/broken/config.json"
fineline run create lab/broken >/dev/null
fineline suite apply "$work/knowledge.yaml" --run lab/broken >/dev/null
fineline push lab/broken 100 "$work/broken" >/dev/null

begun=$SECONDS
check "every step of the real run is scored" fineline wait lab/small-llama --timeout 3000
echo "  evaluated in $((SECONDS - begun)) s"
fineline wait lab/broken --timeout 600 >/dev/null 2>&1 || true
check "what can't be computed fails, and says why" grep -q 'embed_tokens' <<<"$(fineline eval list lab/broken --state failed)"
