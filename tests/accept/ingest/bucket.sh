# Garage with the real run under three layouts. Sourced by ingest.sh.
# shellcheck shell=bash

echo "== a bucket"
if [[ ! -x $garage ]]; then
    echo "skipped: accept/ingest bucket: $no_garage"
    return 0
fi
start_garage
endpoint=$AWS_ENDPOINT_URL
python3 "$ingest/s3_put.py" "$endpoint" "$bucket" runs "$work/s3"
printf '%s:%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$work/keys"
secret_key=$AWS_SECRET_ACCESS_KEY
make_suite
printf '{}' >"$work/s3-control"
start_helper s3-proxy "$ingest/fault_proxy.py" "${endpoint#http://}" --control "$work/s3-control"
endpoint=http://127.0.0.1:$port_of_helper
# The server's own variables are its store's, and open no source.
start_registry "$work/s3-data"
fineline run create lab/none >/dev/null
check "the server's own keys open no source" refused 'give the source a secret' \
    fineline source add none "s3://$bucket/runs/a" --run lab/none --endpoint "$endpoint" --dry-run
n=$(find "$work"/s3/a -mindepth 1 -maxdepth 1 | wc -l)
fineline suite apply "$suite" --run 'lab/*' >/dev/null
layout() { # NAME FOLDER OPTION...
    fineline run create "lab/$1" --tokens-per-step 2048 >/dev/null
    fineline source add "$1" "s3://$bucket/runs/$2" --run "lab/$1" --endpoint "$endpoint" --region garage --settle 1s \
        --secret-file "$work/keys" "${@:3}" >/dev/null
}
layout steps a
layout global b
layout tokens c --template '{tokens}'
wanted=$(for dir in "$work"/s3/a/*; do basename "$dir" | sed 's/step-//'; done | sort -n | tr '\n' ' ')
for name in steps global tokens; do
    check "$name: all $n steps come ($(eventually 240 source_ended "$name" && source_states "$name"))" source_is "$name" "ready=$n"
    check "$name: each is evaluated once" test "$(evaluated "lab/$name") " = "$wanted"
done
for_each() { # RUN FOLDER NAME
    for step in $wanted; do same_files "lab/$1" "$step" "$work/s3/a/step-$step" || return 1; done
}
for name in steps global tokens; do
    check "$name: every step has the originals' digests" for_each "$name"
done
gets() { python3 -c 'import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
print(sum(line["method"] == "GET" and "list-type" not in line["path"] for line in lines))' "$work/s3-proxy.log"; }
before=$(gets)
fineline source sync steps >/dev/null
sleep 1
eventually 60 source_ended steps
check "a second look lists and reads nothing: $(($(gets) - before)) objects" test "$(gets)" = "$before"
check "no key stands in the server's log" bash -c "! grep -q '$secret_key' '$work/s3-data/stderr'"

echo "== a bucket that fails"
printf '{"cut": 0.3, "status": {"503": 0.1}, "seed": 5}' >"$work/s3-control.new" && mv "$work/s3-control.new" "$work/s3-control"
fineline run create cut/steps --tokens-per-step 2048 >/dev/null
fineline source add cut "s3://$bucket/runs/a" --run cut/steps --endpoint "$endpoint" --region garage --settle 1s --watch 10s \
    --secret-file "$work/keys" >/dev/null
check "every step comes through cuts and 503" eventually 240 source_is cut "ready=$n"
echo "    faults that struck: $(faults "$work/s3-proxy.log")"
all_cut() { for step in $wanted; do same_files cut/steps "$step" "$work/s3/a/step-$step" || return 1; done; }
check "with the originals' digests" all_cut
stop_server
