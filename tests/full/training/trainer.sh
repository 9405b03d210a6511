# transformers' Trainer with the callback: without pushes, against a server that never answers, against the real one.
# shellcheck shell=bash

echo "== transformers' Trainer, save_total_limit 1"
log=$work/trainer.log
out=$work/trainer
callback() { python "$scripts/trainer_callback.py" "$@" >"$work/train" 2>>"$log"; }
seconds() { sed -n 's/^train_s=//p' "$1"; }
python3 tests/accept/training/stalled.py "$work/address" & stalled=$!
check "a server listens that never answers" eventually 20 test -s "$work/address"
callback lab/trainer "$text" "$work/alone" --steps 300 --save-every 50 --no-push
alone_s=$(seconds "$work/train")
: >"$log"
code=0
FINELINE_URL=$(cat "$work/address") callback lab/trainer "$text" "$out" --steps 300 --save-every 50 --close-timeout 2 || code=$?
stalled_s=$(seconds "$work/train")
# Once more behind it, as a machine that is busy with other things is not as fast before as after.
callback lab/trainer "$text" "$work/again" --steps 300 --save-every 50 --no-push
again_s=$(seconds "$work/train")
check "the loop ends and says so: $alone_s and $again_s s without pushes, $stalled_s s with (it ended with $code)" \
    test "$code" = 1
check "and takes no longer (within half as much again and 1 s)" python3 -c 'import sys
stalled, *alone = map(float, sys.argv[1:])
sys.exit(stalled > 1.5 * max(alone) + 1)' "$stalled_s" "$alone_s" "$again_s"
check "no call of push took 50 ms: $(grep -oE 'no call took.*' "$log")" calls_fast "$log"
check "each missing step is named" test "$(grep -cE '^step (50|100|150|200|250|300) is not pushed' "$log")" = 6
kill "$stalled"
wait "$stalled" 2>/dev/null || true
stalled=
check "the Trainer kept its last folder alone" test "$(cd "$out" && echo checkpoint-*)" = checkpoint-300
: >"$log"
callback lab/trainer "$text" "$out" --steps 400 --save-every 50
check "with the real server it goes on to 400 and pushes what was missing, too" test "$(steps lab/trainer)" = "50 100 150 200 250 300 350 400"
check "each once" test "$(pushed "$log")" = 8
facts() {
    fineline show "lab/trainer@$1" --json | python3 -c 'import json, sys
step = json.load(sys.stdin)
print(step["state"], step["tokens"], step["loss"], step["architecture"])'
}
told=$(python3 -c 'import json, sys
state = json.load(open(sys.argv[1]))
print(state["num_input_tokens_seen"], [entry["loss"] for entry in state["log_history"] if "loss" in entry][-1])' \
    "$out/checkpoint-400/trainer_state.json")
check "tokens and loss are the Trainer's: $(facts 400)" test "$(facts 400)" = "ready $told LlamaForCausalLM"
check "the weights digest is that of the saved file" digest_is lab/trainer@400 "$out/checkpoint-400/model.safetensors"
check "the restart files stayed at home" test "$(fineline ls lab/trainer@400 --json | grep -cE 'optimizer|scheduler|rng_state|training_args')" = 0
check "the spool is empty" empty "$out/spool"
fineline pull lab/trainer@400 "$work/pulled" >/dev/null
check "transformers loads what is pulled, tokenizer and model" python -c 'import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokens = AutoTokenizer.from_pretrained(folder)("the registry", return_tensors="pt")
assert AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens["input_ids"]).logits.isfinite().all()' "$work/pulled" 2>>"$log"
fineline wait lab/trainer --timeout 300 >/dev/null 2>&1
check "each step has its score" test "$(scored lab/trainer)" = "$(steps lab/trainer)"
