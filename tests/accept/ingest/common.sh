# What the parts of ingest.sh share. Sourced, never run.
# shellcheck shell=bash

# start_helper NAME PROGRAM ARGUMENT...: starts one of the Python servers; its port is in $port_of_helper, its log NAME.log.
start_helper() {
    local name=$1
    shift
    rm -f "$work/$name.port"
    python3 "$@" --port-file "$work/$name.port" --log "$work/$name.log" &
    helpers+=("$!")
    eventually 20 test -s "$work/$name.port"
    port_of_helper=$(cat "$work/$name.port")
}

# start_registry DIR [OPTION...]: a registry that may reach the servers of this script.
start_registry() { start_server "$1" --evaluator off --source-allow 127.0.0.1 --source-root "$work" "${@:2}"; }

# make_suite: a suite of one small task, in $suite.
make_suite() {
    suite=$work/suite/suite.yaml
    mkdir -p "$work/suite"
    printf '{"q": "x", "gold": 0}\n' >"$work/suite/docs.jsonl"
    printf 'task: tiny\ndataset_path: json\ndataset_kwargs: {data_files: {test: docs.jsonl}}\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: gold\ndoc_to_choice: [a, bb]\n' >"$work/suite/tiny.yaml"
    printf 'suite: s\ntasks: [tiny.yaml]\n' >"$suite"
}

# source_states NAME: how many checkpoints are in which state, as `ready=3 waiting=1`.
source_states() {
    fineline source show "$1" --json 2>/dev/null | python3 -c 'import collections, json, sys
steps = json.load(sys.stdin)["steps"]
print(" ".join(f"{state}={n}" for state, n in sorted(collections.Counter(step["state"] for step in steps).items())))'
}

# source_is NAME STATES: it is so, and nobody looks at it any more or it waits.
source_is() { [[ $(source_states "$1") == "$2" ]]; }

# source_ended NAME: it has nothing left to do.
source_ended() { [[ $(fineline source show "$1" --json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["source"]["state"])') == done ]]; }

# same_files RUN STEP DIR [LEFT_OUT...]: every file of the step has the SHA-256 of the original's, and none is missing but those.
same_files() {
    fineline ls "$1@$2" --json | python3 "$ingest/same_files.py" "$3" "${@:4}"
}

# evaluated RUN: the steps of all evaluation rows of a run, one a row, sorted.
evaluated() {
    api GET "/evaluations?run=$1&limit=1000" | python3 -c 'import json, sys
print(" ".join(map(str, sorted(row["step"] for row in json.load(sys.stdin)["items"]))))'
}

# read_bytes LOG [PATTERN]: bytes of files that a Hub's log says were sent, of paths that match.
read_bytes() {
    python3 - "$1" "${2:-/resolve/}" <<'PY'
import json, re, sys
lines = (json.loads(line) for line in open(sys.argv[1]))
print(sum(line["body_bytes"] for line in lines if line["method"] == "GET" and re.search(sys.argv[2], line["path"])))
PY
}

# n_requests LOG PATTERN
n_requests() { python3 -c 'import json, re, sys
print(sum(bool(re.search(sys.argv[2], json.loads(line)["path"])) for line in open(sys.argv[1])))' "$1" "$2"; }

# faults LOG: how often which fault struck.
faults() { python3 -c 'import collections, json, sys
print(dict(collections.Counter(str(json.loads(line)["fault"]) for line in open(sys.argv[1]) if json.loads(line)["fault"])))' "$1"; }
