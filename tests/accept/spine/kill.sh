# kill -9 of the client, then of the server, after 512 MiB of 1 GiB were acknowledged; the same command ends the push.
# shellcheck shell=bash

echo "== kill -9 in the middle of 1 GiB"
[[ -z $server ]] || stop_server
start_server "$work/kill" --evaluator off
fineline run create lab/big >/dev/null
half=$((512 << 20))

received() { printf '%.0f' "$(metric fineline_chunk_received_bytes_total)"; }
push() { exec "$bin/fineline" push lab/big "$1" "$work/big-$1" >"$work/push-$1.out" 2>&1; }
# Waits until the server has acknowledged half of the bytes since $1.
past_half() {
    for _ in $(seq 3000); do
        (($(received) - $1 < half)) || return 0
        sleep 0.02
    done
    return 1
}
# Bytes of all chunks that were acknowledged for a step, over all its sessions, as the server's database has them.
acknowledged() {
    python3 -c 'import sqlite3, sys
print(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute("SELECT SUM(received_bytes) FROM push_session WHERE step = ?", [int(sys.argv[2])]).fetchone()[0])' \
        "$work/kill/fineline.db" "$1"
}
check_end() { # STEP WHO
    local size sent
    size=$(find "$work/big-$1" -type f -printf '%s\n' | awk '{n += $1} END {print n}')
    sent=$(acknowledged "$1")
    check "$2 killed: $((sent - size)) of $size bytes were sent again (at most 64 MiB)" test $((sent - size)) -le $((64 << 20))
    fineline pull "lab/big@$1" "$work/pulled" >/dev/null
    check "$2 killed: the step is byte-identical" diff -r "$work/big-$1" "$work/pulled"
    rm -rf "$work/pulled" "$work/big-$1"
}

python3 tests/accept/spine/generate.py "$work/big-1" 1
before=$(received)
push 1 & client=$!
check "the client's push passes 512 MiB" past_half "$before"
kill -9 $client; wait $client 2>/dev/null || true
check "it did not end before" test "$(fineline ls lab/big --json)" = "[]"
fineline push lab/big 1 "$work/big-1" >/dev/null
check_end 1 client

python3 tests/accept/spine/generate.py "$work/big-2" 2
before=$(received)
push 2 & client=$!
check "the second push passes 512 MiB" past_half "$before"
kill -9 "$server"; wait "$server" 2>/dev/null || true
kill -9 $client; wait $client 2>/dev/null || true
start_server "$work/kill" --evaluator off
check "the step is not there after the crash" test "$(fineline ls lab/big --json | python3 -c 'import json, sys; print([c["step"] for c in json.load(sys.stdin)])')" = "[1]"
fineline push lab/big 2 "$work/big-2" >/dev/null
check_end 2 server
stop_server
check "scrub is clean after both" "$bin/fineline-registry" scrub --data "$work/kill"
