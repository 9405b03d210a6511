# What is not yours is unknown to you, at the doors of a real private step; and your own interrupted push goes on.
# shellcheck shell=bash

echo "== possession"
start_server "$work/possession" --evaluator off
for run in other/secret lab/secret lab/open; do fineline run create $run >/dev/null; done
fineline push other/secret 512 "$(step_dir 512)" >/dev/null
fineline push lab/secret 3000 "$(step_dir 3000)" >/dev/null
admin=$FINELINE_TOKEN
token_of() { "$bin/fineline-registry" token create --name t --scope "$1" --runs lab/open --data "$work/possession" 2>/dev/null; }

# ask METHOD PATH [CURL-OPTION...]: status, headers and body without what differs between any two answers.
ask() {
    local method=$1 path=$2
    shift 2
    curl -sS -i -X "$method" -H "Authorization: Bearer $token" "$@" "$FINELINE_URL/api/v1$path" |
        sed -E "s/sha256:[0-9a-f]{64}/DIGEST/g; s/\"request_id\":\"[^\"]*\"//; /^(date|x-request-id|content-length):/Id"
}
# The owner gets what a stranger is refused, at the same paths: the questions below are good ones.
n_answered=0
for path in "" /manifest /files /files/model.safetensors /tensors; do
    digest=$(fineline show other/secret@512 --json | field digest)
    api GET "/runs/other/secret/checkpoints/$digest$path" -o /dev/null
    [[ $(status) == 200 ]] && n_answered=$((n_answered + 1))
done
check "the owner is answered at $n_answered of 5 doors" test $n_answered = 5
n_asked=0 n_told=0
for secret in other/secret@512 lab/secret@3000; do
    FINELINE_TOKEN=$admin fineline show "$secret" --json >"$work/shown.json"
    digest=$(field digest <"$work/shown.json")
    run=${secret%@*} step=${secret#*@}
    FINELINE_TOKEN=$admin api GET "/runs/$run/checkpoints/$step/files?recipes=true" >"$work/files.json"
    read -r file chunk < <(python3 -c 'import json, sys
files = json.load(open(sys.argv[1]))
weights = next(f for f in files if f["path"] == "model.safetensors")
print(weights["digest"], weights["chunks"][-1]["digest"])' "$work/files.json")
    for scope in read write evaluate; do
        token=$(token_of $scope)
        for method_path in "GET /chunks/DIGEST" "POST /chunks/missing" "GET /checkpoints/DIGEST" "GET /checkpoints/DIGEST/manifest" \
            "GET /checkpoints/DIGEST/files" "GET /checkpoints/DIGEST/files/model.safetensors" "GET /checkpoints/DIGEST/tensors" \
            "DELETE /checkpoints/DIGEST" "PUT /tags/t" "POST /releases"; do
            method=${method_path% *} path=/runs/lab/open${method_path#* }
            for name in "$digest" "$file" "$chunk"; do
                unknown=sha256:$(openssl rand -hex 32)
                for asked in "$name" "$unknown"; do
                    body='{"digests":["'$asked'"]}'
                    [[ $path != */tags/* ]] || body='{"reference":"'$asked'"}'
                    [[ $path != */releases ]] || body='{"release":"r","reference":"'$asked'"}'
                    options=()
                    [[ $method == GET || $method == DELETE ]] || options=(-H 'content-type: application/json' -d "$body")
                    ask "$method" "${path/DIGEST/$asked}" "${options[@]}" >"$work/answer-${asked:0:12}"
                done
                n_asked=$((n_asked + 1))
                diff -q "$work/answer-${name:0:12}" "$work/answer-${unknown:0:12}" >/dev/null || {
                    n_told=$((n_told + 1))
                    echo "    $scope $method_path tells of $secret"
                }
            done
        done
    done
done
check "$n_asked questions about two private steps: $n_told answers differ from those about an unknown digest" test "$n_told" = 0

size=$(find "$(step_dir 512)" -type f -printf '%s\n' | awk '{n += $1} END {print n}')
received() { printf '%.0f' "$(metric fineline_chunk_received_bytes_total)"; }
before=$(received)
sent=$(FINELINE_TOKEN=$(token_of write) fineline push lab/open 512 "$(step_dir 512)" --json | field sent_chunks)
check "a stranger's push of the same step sends every byte ($(($(received) - before)) of $size in $sent chunks)" \
    test $(($(received) - before)) = "$size"

before=$(received)
FINELINE_KILL_AT=push.chunk_sent:9 check "a push is killed on its way" killed "$bin/fineline" push lab/open 750 "$(step_dir 750)"
first=$(($(received) - before))
before=$(received)
fineline push lab/open 750 "$(step_dir 750)" >/dev/null
check "a push killed after $first bytes sends $(($(received) - before)) more, no byte twice" \
    eval '((first > 0 && first < size && first + $(received) - before <= size))'
check "what was pushed so is identical" identical lab/open@750 "$(step_dir 750)"
stop_server
