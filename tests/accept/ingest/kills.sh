# The server killed twenty times while a whole run comes in, at moments that nobody chose. Sourced by ingest.sh.
# shellcheck shell=bash

echo "== twenty kills"
make_suite
start_helper slow-hub "$ingest/hub_server.py" "$work/slow"
mkdir -p "$work/slow/lab/run"
cp -r "$work"/s3/a/* "$work/slow/lab/run"
printf '{"slow": 0.3, "slow_s": 0.6, "seed": 3}' >"$work/slow-control"
start_helper slow-proxy "$ingest/fault_proxy.py" "127.0.0.1:$port_of_helper" --control "$work/slow-control"
slow=http://127.0.0.1:$port_of_helper
start_registry "$work/killed"
port=${FINELINE_URL##*:}
fineline run create lab/killed >/dev/null
fineline suite apply "$suite" --run 'lab/*' >/dev/null
fineline source add killed hf://lab/run --run lab/killed --endpoint "$slow" --settle 1s --watch 10s >/dev/null
n_kills=0
# It is killed in the middle of something: a moment after files were asked for again.
asked() { (($(n_requests "$work/slow-hub.log" /resolve/) > n_asked)); }
while ((n_kills < 20)); do
    n_asked=$(n_requests "$work/slow-hub.log" /resolve/)
    eventually 30 asked || source_is killed "ready=$(find "$work"/s3/a -mindepth 1 -maxdepth 1 | wc -l)" || break
    sleep "0.$((RANDOM % 5))"
    kill -9 "$server" && wait "$server" 2>/dev/null || true
    n_kills=$((n_kills + 1))
    start_registry "$work/killed"
done
n=$(find "$work"/s3/a -mindepth 1 -maxdepth 1 | wc -l)
check "after $n_kills kills all $n steps come" eventually 240 source_is killed "ready=$n"
unset port
wanted=$(for dir in "$work"/s3/a/*; do basename "$dir" | sed 's/step-//'; done | sort -n | tr '\n' ' ')
check "each evaluation is there once" test "$(evaluated lab/killed) " = "$wanted"
all_same() { for dir in "$work"/s3/a/*; do same_files lab/killed "$(basename "$dir" | sed 's/step-//')" "$dir" || return 1; done; }
check "with the originals' digests" all_same
# A file that was under way when the server died may be read again from its beginning: it is smaller than what is noted at once.
of_files=$(du -sbL "$work/slow" | cut -f1) sent=$(read_bytes "$work/slow-hub.log")
check "the Hub sent $sent bytes of $of_files, which no kill may double" test "$sent" -le $((of_files * 2))
stop_server
check "scrub reads every byte and finds nothing" bash -c "'$bin/fineline-registry' scrub --data '$work/killed' >/dev/null 2>&1"
