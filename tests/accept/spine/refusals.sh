# What must be refused, with a clear error and nothing visible.
# shellcheck shell=bash

echo "== refusals"
[[ -z $server ]] || stop_server
start_server "$work/refusals" --evaluator off
fineline run create lab/bad >/dev/null
good=$data/run/step-000512
copy() { rm -rf "$work/bad" && cp -r "$1" "$work/bad" && chmod -R u+w "$work/bad"; }

fineline push lab/bad 512 "$good" >/dev/null
copy "$good"
printf '\n' >>"$work/bad/config.json"
check "other bytes at a held step" refused 'hint: .*--replace' fineline push lab/bad 512 "$work/bad"

copy "$good"
truncate -s -1000 "$work/bad/model.safetensors"
check "a truncated shard" refused 'model.safetensors' fineline push lab/bad 1 "$work/bad"

copy "$data/run_bin/step-000512"
truncate -s -1000 "$work/bad/pytorch_model-00002-of-00003.bin"
check "a truncated .bin shard" refused 'pytorch_model-00002-of-00003.bin' fineline push lab/bad 1 "$work/bad"

copy "$data/run_bin/step-000512"
rm "$work/bad/pytorch_model-00002-of-00003.bin"
check "an index naming a missing shard" refused 'pytorch_model-00002-of-00003.bin' fineline push lab/bad 1 "$work/bad"

copy "$good"
python3 - "$work/bad/model.safetensors" <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + n])
header["model.norm.weight"]["shape"] = [161]
lying = json.dumps(header).encode()
lying += b" " * (-len(lying) % 8)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(lying)) + lying + data[8 + n :])
PY
check "a safetensors header that lies" refused 'model.norm.weight' fineline push lab/bad 1 "$work/bad"

# The server itself must refuse what an honest client would not send.
session=$(api POST /runs/lab/bad/push-sessions -H 'Content-Type: application/json' -d '{"step": 1}' | field id)
some=sha256:$(printf x | openssl dgst -sha256 -r | cut -d' ' -f1)
frame=$(api GET "/runs/lab/bad/checkpoints/512/files?recipes=true" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["chunks"][0]["digest"])')
api GET "/runs/lab/bad/chunks/$frame" >"$work/frame"
api PUT "/runs/lab/bad/chunks/$some?session=$session" -H 'Content-Type: application/vnd.fineline.frame' --data-binary "@$work/frame" >"$work/answer"
check "a wrong digest: $(cat "$work/answer")" grep -q digest_mismatch "$work/answer"
check "… is 422" test "$(status)" = 422
for path in ../x /etc/passwd a/../../x 'a\\b' ''; do
    api POST "/runs/lab/bad/push-sessions/$session/files" -H 'Content-Type: application/json' \
        -d "{\"path\": \"$path\", \"size_bytes\": 1, \"digest\": \"$some\", \"chunks\": [{\"digest\": \"$some\", \"size_bytes\": 1}]}" >"$work/answer"
    check "a path that leaves the folder (\`$path\`): $(status)" grep -qE '^(400|422)$' "$status_file"
done
api DELETE "/runs/lab/bad/push-sessions/$session" >/dev/null
check "nothing of all that is visible" test "$(fineline ls lab/bad --all --json | python3 -c 'import json, sys; print([c["step"] for c in json.load(sys.stdin) if c["state"] not in ("failed",)])')" = "[512]"
check "fsck is clean" "$bin/fineline-registry" fsck --data "$work/refusals"
stop_server
