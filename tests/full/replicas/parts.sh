# What goes on at once in the test of replicas. Sourced, never run.
# shellcheck shell=bash

# start_replica NAME: a server with a data folder of its own on its own port, on the database and store that both have.
start_replica() {
    local name=$1
    mkdir -p "$work/$name"
    "$bin/fineline-registry" serve --listen "127.0.0.1:${ports[$name]}" --data "$work/$name" --evaluator off --grace 8s \
        --lease-ttl 10 --retry-back-off 1 --database "$database" --store "$store" --admin-token-file "$work/admin.token" \
        >"$work/$name/stdout" 2>>"$work/$name/stderr" &
    pid[$name]=$!
    for _ in $(seq 300); do
        ! curl -fsS "http://127.0.0.1:${ports[$name]}/readyz" >/dev/null 2>&1 || return 0
        kill -0 "${pid[$name]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/$name/stderr" >&2
    return 1
}

# A balancer as it is usual: the next replica where one does not answer, and no body held.
start_balancer() {
    local port
    port=$(free_port)
    cat >"$work/nginx.conf" <<NGINX
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    upstream fineline {
        server 127.0.0.1:${ports[one]} max_fails=1 fail_timeout=1s;
        server 127.0.0.1:${ports[two]} max_fails=1 fail_timeout=1s;
    }
    server {
        listen 127.0.0.1:$port;
        location / {
            proxy_pass http://fineline;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Connection "";
            proxy_next_upstream error timeout;
            proxy_connect_timeout 2s;
        }
    }
}
NGINX
    nginx -c "$work/nginx.conf" -e "$work/nginx.log" &
    pid[nginx]=$!
    export FINELINE_URL=http://127.0.0.1:$port
}

start_worker() { # NAME TOKEN
    FINELINE_TOKEN=$2 "$bin/fineline-evaluator" --server "$FINELINE_URL" --device cpu --name "$1" >>"$work/$1.log" 2>&1 &
    pid[$1]=$!
}

start_all() {
    local token
    start_postgres "$work/postgres"
    psql --quiet "${FINELINE_TEST_POSTGRES/\{database\}/postgres}" -c 'CREATE DATABASE fineline'
    database=${FINELINE_TEST_POSTGRES/\{database\}/fineline}
    store=file://$work/store
    if [[ -x $garage ]]; then
        start_garage
        store=s3://$bucket/lab
    fi
    echo "fl_$(openssl rand -hex 32)" >"$work/admin.token"
    declare -gA ports=([one]=$(free_port) [two]=$(free_port))
    # At the same time, so that both make the schema.
    start_replica one &
    local first=$!
    start_replica two
    wait $first
    # The first one's process belongs to a shell that has ended.
    pid[one]=$(pgrep -f "listen 127.0.0.1:${ports[one]}")
    start_balancer
    FINELINE_TOKEN=$(cat "$work/admin.token")
    export FINELINE_TOKEN FINELINE_CONFIG=$work/client.toml
    for _ in $(seq 100); do curl -fsS "$FINELINE_URL/readyz" >/dev/null 2>&1 && break; sleep 0.1; done
    token=$("$bin/fineline-registry" token create --name workers --scope evaluate --runs '*' --data "$work/one" \
        --database "$database" --store "$store")
    for worker in w1 w2 w3; do start_worker $worker "$token"; done
}

# stubborn COMMAND...: until it succeeds, as a job that is started again; at most 40 times.
stubborn() {
    local n
    for n in $(seq 40); do
        "$@" >>"$work/commands.log" 2>&1 && return 0
        echo "again: $*" >>"$work/again"
        sleep 0.5
    done
    echo "gave up: $*" | tee -a "$work/gave-up" >&2
    return 1
}

# push_for_ever RUN: pushes steps of the real run again and again under new numbers, reads each back, and deletes all but
# the newest three.
push_for_ever() {
    local run=lab/$1 n=0 at old steps=(0 1 2 4 8 16 32 64 128 256 512 750 1000 1250 1500 1750 2000 2250 2500 2750 3000)
    while [[ ! -e $work/enough ]]; do
        n=$((n + 1))
        at=${steps[n % ${#steps[@]}]}
        stubborn fineline push "$run" "$n" "$(step_dir "$at")" || continue
        echo "$n $at" >>"$work/pushed-$1"
        stubborn identical "$run@$n" "$(step_dir "$at")" "$work/pulled-$1" && echo "$n" >>"$work/read-$1"
        old=$((n - 3))
        # A deletion whose answer was lost finds nothing when it is repeated.
        if ((old > 0)); then fineline delete "$run@$old" >>"$work/commands.log" 2>&1 || true; fi
    done
}

collect_for_ever() {
    while [[ ! -e $work/enough ]]; do
        fineline storage gc --json >"$work/gc.json" 2>/dev/null && echo 1 >>"$work/collected"
        sleep 0.5
    done
}

push_scored() {
    local step
    for step in $scored; do stubborn fineline push lab/scored "$step" "$(step_dir "$step")"; done
}

lines() { cat "$@" 2>/dev/null | wc -l; }

# kept RUN: every step that is listed reads back as it was pushed.
kept() {
    local step at steps
    steps=$(fineline ls "lab/$1" --json | python3 -c 'import json, sys; print(*[c["step"] for c in json.load(sys.stdin)])') || return 1
    [[ -n $steps ]] || return 1
    echo "    steps $steps"
    for step in $steps; do
        at=$(awk -v step="$step" '$1 == step {print $2}' "$work/pushed-$1")
        identical "lab/$1@$step" "$(step_dir "$at")" "$work/pulled-$1" >>"$work/commands.log" 2>&1 || return 1
    done
}

n_objects() {
    if [[ $store == file:* ]]; then find "$work/store" -type f | wc -l; else in_bucket lab/frames/ | cut -d' ' -f1; fi
}

all_is_live() {
    fineline storage gc --json >"$work/gc.json"
    python3 - "$work/gc.json" "$(n_objects)" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
sys.exit(not (report["waiting"]["n"] == 0 and report["condemned"]["n"] == 0 and report["live"]["n"] == int(sys.argv[2])))
PYTHON
}

report() {
    local pushed read_back
    pushed=$(lines "$work"/pushed-?) read_back=$(lines "$work"/read-?)
    check "$kills times a replica was killed, $(lines "$work/again") commands were repeated, none was given up" \
        test "$kills" -ge 2 -a ! -e "$work/gave-up"
    check "$pushed steps were pushed and $read_back read back at once, beside $(lines "$work/collected") collections" \
        test "$pushed" = "$read_back" -a "$pushed" -gt 10 -a "$(lines "$work/collected")" -gt 5
    check "no replica died but by a kill" test ! -e "$work/died"
    check "every step that is left of lab/a reads back" kept a
    check "every step that is left of lab/b reads back" kept b
    check "all six evaluations are done" fineline wait lab/scored --timeout 300
    check "six are listed as done" test "$(fineline eval list lab/scored --json |
        python3 -c 'import json, sys; print([e["state"] for e in json.load(sys.stdin)].count("done"))')" = 6
    check "what nothing needs is gone in the end: $(n_objects) objects before" eventually 120 all_is_live
    echo "    $(n_objects) objects are left"
    kill "${pid[one]}" "${pid[two]}" && wait "${pid[one]}" "${pid[two]}" 2>/dev/null || true
    unset "pid[one]" "pid[two]"
    check "scrub reads every byte and finds nothing" "$bin/fineline-registry" scrub --data "$work/one" \
        --database "$database" --store "$store"
    finish
}
