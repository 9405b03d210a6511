# What the acceptance scripts share: a server, the client, checks that are counted. Sourced, never run.
# shellcheck shell=bash

n_checks=0
n_short=0

# check TEXT COMMAND...: one thing that must be so.
check() {
    local text=$1
    shift
    n_checks=$((n_checks + 1))
    if "$@"; then
        echo "  ok    $text"
    else
        echo "  SHORT $text"
        n_short=$((n_short + 1))
    fi
}

finish() {
    echo
    echo "$n_checks checks, $n_short fell short"
    ((n_short == 0))
}

# link_programs_under_test: the real programs, linked with the fail points at which some of a script kills them, in $bin.
link_programs_under_test() {
    cargo build --locked --quiet -p fineline-tests --bins || return 1
    bin=$work/bin
    mkdir "$bin"
    ln -s "$CARGO_TARGET_DIR/debug/registry-under-test" "$bin/fineline-registry"
    ln -s "$CARGO_TARGET_DIR/debug/client-under-test" "$bin/fineline"
    ln -s "$CARGO_TARGET_DIR/debug/worker-under-test" "$bin/fineline-evaluator"
}

# step_dir STEP: the folder of a step of the real run, which lies in $data.
step_dir() { printf '%s/run/step-%06d' "$data" "$1"; }

# identical RUN@REF DIR [PLACE]: what is pulled, to PLACE, is what was pushed.
identical() {
    local to=${3:-$work/pulled}
    rm -rf "$to"
    fineline pull "$1" "$to" >/dev/null && diff -r "$2" "$to"
}

# eventually SECONDS COMMAND...: it becomes so.
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

# start_server DIR [OPTION...]: serves DIR on a free port (or on $port, when set) and points the client at it.
start_server() {
    local dir=$1
    shift
    mkdir -p "$dir"
    : >"$dir/stdout"
    "$bin/fineline-registry" serve --listen "127.0.0.1:${port:-0}" --data "$dir" "$@" >"$dir/stdout" 2>>"$dir/stderr" &
    server=$!
    for _ in $(seq 300); do
        FINELINE_URL=$(grep -oE 'http://[0-9.:]+' "$dir/stdout" | head -1) || true
        [[ -z $FINELINE_URL ]] || break
        kill -0 "$server" 2>/dev/null || { cat "$dir/stderr" >&2; return 1; }
        sleep 0.1
    done
    [[ -n $FINELINE_URL ]] || { echo "the server did not start" >&2; return 1; }
    FINELINE_TOKEN=$(cat "$dir/admin.token")
    FINELINE_CONFIG=$dir/client.toml
    export FINELINE_URL FINELINE_TOKEN FINELINE_CONFIG
}

stop_server() {
    local code=0
    kill "$server"
    wait "$server" 2>/dev/null || code=$?
    server=
    ((code == 0)) || check "the server ends well when it is told to (it ended with $code)" false
}

# killed COMMAND...: the command dies by SIGKILL, as it does at a fail point; within two minutes.
killed() {
    local code=0
    timeout 120 "$@" >/dev/null 2>&1 || code=$?
    ((code == 137))
}

# server_killed: the server dies by SIGKILL, as it does at a fail point; within two minutes.
server_killed() {
    local code=0
    for _ in $(seq 1200); do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || code=$?
    server=
    ((code == 137))
}

# What ends a script early says where.
trap 'echo "stopped by line $LINENO of ${BASH_SOURCE[0]}" >&2' ERR

fineline() { "$bin/fineline" "$@"; }

# api METHOD PATH [CURL-OPTION...]: the API by plain curl; the body on stdout, the status in $status_file.
status_file=$work/status
api() {
    local method=$1 path=$2
    shift 2
    curl -sS -X "$method" -H "Authorization: Bearer $FINELINE_TOKEN" -w '%{stderr}%{http_code}' "$@" \
        "$FINELINE_URL/api/v1$path" 2>"$status_file"
}

status() { cat "$status_file"; }

# field NAME: a field of the JSON on stdin.
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# metric NAME: a counter of the server, 0 before it was counted first.
metric() { curl -sS -H "Authorization: Bearer $FINELINE_TOKEN" "$FINELINE_URL/metrics" | awk -v name="$1" '$1 == name {print $2; found = 1} END {if (!found) print 0}'; }

# refused PATTERN COMMAND...: the command exits with 1 and its stderr matches.
refused() {
    local pattern=$1 code=0
    shift
    "$@" >"$work/out" 2>"$work/err" || code=$?
    if ((code != 1)) || ! grep -qE "$pattern" "$work/err"; then
        echo "    exit $code, stderr: $(tr '\n' ' ' <"$work/err")"
        return 1
    fi
    echo "    $(grep -m1 . "$work/err")"
}
