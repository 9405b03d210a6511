# A Hub: branches with .bin shards of differing count, a shared tokenizer, a duplicated step, a branch without weights, scores
# in the revision, and a repository per checkpoint named by tokens. Sourced by ingest.sh.
# shellcheck shell=bash

echo "== the independent Hub is one, by the real client"
venv=$CARGO_TARGET_DIR/huggingface_hub-2.4.0
if [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c 'import huggingface_hub' 2>/dev/null; then
    python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check huggingface_hub==2.4.0
fi
start_helper checked-hub "$ingest/hub_server.py" "$work/hub" --page 4
check "huggingface_hub lists, downloads, reads ranges and takes snapshots of it" env HF_HUB_DISABLE_XET=1 HF_HOME="$work/hf" \
    "$venv/bin/python" "$ingest/hub_check.py" "http://127.0.0.1:$port_of_helper" "$work/hub" llm360/amber-small ckpt_001 --page 4

echo "== branches become steps"
make_suite
start_helper hub "$ingest/hub_server.py" "$work/hub" --page 3 --token hush-hush-hush
hub=http://127.0.0.1:$port_of_helper
echo hush-hush-hush >"$work/token"
start_registry "$work/data"
fineline run create lab/amber >/dev/null
fineline suite apply "$suite" --run 'lab/*' >/dev/null
amber=(amber hf://llm360/amber-small --run lab/amber --endpoint "$hub" --settle 1s --tokens-per-step 3497600000 --tokens-at-step-0 3497600000)
check "without the token nothing is told but that" refused 'whether the secret is for it' fineline source add "${amber[@]}" --dry-run
amber+=(--tokenizer llm360/amber-small-tokenizer --secret-file "$work/token")
fineline source add "${amber[@]}" --dry-run --json >"$work/preview.json" 2>/dev/null
preview() { python3 -c 'import json, sys
steps = {step["name"]: step for step in json.load(open(sys.argv[1]))["steps"]}
sys.exit(not eval(sys.argv[2]))' "$work/preview.json" "$1"; }
sent=$(read_bytes "$work/hub.log")
check "the dry run read no file" test "$sent" = 0
check "it has steps 0 to 3, and what has none" preview '[steps[f"ckpt_00{n}"]["step"] for n in range(5)] == [0, 1, 2, 3, 4] and steps["main"]["step"] is None'
check "it tells equal weights at two steps before a byte is read" preview 'any("ckpt_002" in w for w in steps["ckpt_003"]["warnings"]) and any("ckpt_003" in w for w in steps["ckpt_002"]["warnings"])'
check "and the branch without weights" preview 'steps["ckpt_004"]["state"] == "waiting" and "weights" in steps["ckpt_004"]["message"]'
fineline source add "${amber[@]}" >/dev/null
check "the source ends" eventually 120 source_ended amber
check "four steps came, one is reported, main is no step: $(source_states amber)" source_is amber "failed=1 ignored=1 ready=5"
for n in 0 1 2 3; do
    check "step $n has the originals' digests" same_files lab/amber "$n" "$work/hub/llm360/amber-small/ckpt_00$n"
done
# The duplicate is the same model as step 2: its scores are shown at both.
check "each model is evaluated once, at steps $(evaluated lab/amber)" test "$(evaluated lab/amber)" = "0 1 2"
fineline source show amber >"$work/show"
check "the duplicate is reported where it is" grep -q 'the weights are those of' "$work/show"
fineline scores lab/amber --harness lm-eval --csv >"$work/scores.csv"
check "$(($(wc -l <"$work/scores.csv") - 1)) scores came with the revisions, under their harness" grep -q 'arc_challenge.*lm-eval' "$work/scores.csv"
check "and none is ours" bash -c "! grep -q ',fineline,' '$work/scores.csv'"
digest() { fineline show "$1" --json | field weights_digest; }
fineline run create lab/plain >/dev/null
fineline push lab/plain 3000 "$(step_dir 3000)" >/dev/null
check "the weights digest of .bin shards is that of safetensors" test "$(digest lab/amber@2)" = "$(digest lab/plain@3000)"

echo "== nothing is read twice"
of_files=$(du -sb "$work"/hub/llm360/amber-small/ckpt_00[0-3] | awk '{n += $1} END {print n}')
unique=$(find "$work"/hub/llm360/amber-small/ckpt_00[0-3] -type f -exec sha256sum {} + | sort -u -k1,1 | awk '{print $2}' | xargs stat -c %s | awk '{n += $1} END {print n}')
sent=$(read_bytes "$work/hub.log" 'amber-small/resolve')
check "$of_files bytes of files, $unique of them different; the Hub sent $sent" test "$sent" -le $((unique * 102 / 100 + 65536))
fineline source sync amber >/dev/null
eventually 60 source_ended amber
check "a second look reads nothing: $(($(read_bytes "$work/hub.log" 'amber-small/resolve') - sent)) bytes" test "$(read_bytes "$work/hub.log" 'amber-small/resolve')" = "$sent"
fineline run create lab/again >/dev/null
fineline source add again hf://llm360/amber-small --run lab/again --endpoint "$hub" --settle 1s --secret-file "$work/token" >/dev/null
eventually 60 source_ended again
now=$(read_bytes "$work/hub.log" 'amber-small/resolve')
small=$(find "$work"/hub/llm360/amber-small/ckpt_00[0-3] -type f -size -1k -printf '%s\n' | awk '{n += $1} END {print n + 0}')
check "another run of the namespace links what it holds: $((now - sent)) bytes, small files without digests have $small" test $((now - sent)) -le $((small + 65536))
fineline run create other/amber >/dev/null
fineline source add other hf://llm360/amber-small --run other/amber --endpoint "$hub" --settle 1s --secret-file "$work/token" >/dev/null
eventually 60 source_ended other
of_other=$(($(read_bytes "$work/hub.log" 'amber-small/resolve') - now))
check "another namespace knows of nothing and reads it all: $of_other bytes" test "$of_other" -ge $((unique - 1))
check "no secret stands in an answer or the log" bash -c "! grep -rq hush-hush '$work/data/stderr' '$work/show' '$work/preview.json'"

echo "== a repository a checkpoint"
fineline run create lab/named >/dev/null
named=()
for repo in "$work"/hub/m-a-p/*; do named+=("hf://m-a-p/$(basename "$repo")"); done
fineline source add named "${named[@]}" --run lab/named --endpoint "$hub" --settle 1s --tokens-per-step 4194304 --step-multiple 1000 --secret-file "$work/token" >/dev/null
eventually 60 source_ended named
check "tokens in names become steps, moved to thousands: $(fineline ls lab/named --json | python3 -c 'import json, sys; print([c["step"] for c in json.load(sys.stdin)])')" \
    test "$(fineline ls lab/named --json | python3 -c 'import json, sys; print(*sorted(c["step"] for c in json.load(sys.stdin)))')" = "24000 28000 52000"

echo "== what changes, and what is half there"
# On a copy: the other parts need the Hub as it was.
cp -r "$work/hub" "$work/changing"
start_helper changing "$ingest/hub_server.py" "$work/changing"
changing=http://127.0.0.1:$port_of_helper
fineline run create lab/watched >/dev/null
fineline source add watched hf://llm360/amber-small --run lab/watched --endpoint "$changing" --watch 10s --settle 1s --select 'ckpt_*' >/dev/null
check "a watched source has four steps and waits for one" eventually 60 source_is watched "ready=4 waiting=1"
before=$(digest lab/watched@1)
cp "$work"/changing/llm360/amber-small/ckpt_000/pytorch_model* "$work/changing/llm360/amber-small/ckpt_004/"
rm "$work"/changing/llm360/amber-small/ckpt_001/model*
cp "$work"/changing/llm360/amber-small/ckpt_000/pytorch_model* "$work/changing/llm360/amber-small/ckpt_001/"
changed() { [[ $(digest lab/watched@1) != "$before" ]] && source_is watched "ready=5"; }
check "the weights come and the step too; the changed one has a new revision" eventually 90 changed
fineline source show watched >"$work/show"
check "with a warning" grep -q 'changed in the source' "$work/show"
stop_server
