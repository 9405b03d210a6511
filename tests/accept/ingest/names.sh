# Each line of docs/INGEST.md's releases by a dry run against the independent Hub with those names. Sourced by ingest.sh.
# shellcheck shell=bash

echo "== the releases of docs/INGEST.md"
python3 "$ingest/releases.py" fill "$data" "$work/releases"
start_helper releases "$ingest/hub_server.py" "$work/releases"
releases=http://127.0.0.1:$port_of_helper
start_registry "$work/names"
while read -r run; do fineline run create "$run" >/dev/null; done < <(python3 "$ingest/releases.py" runs docs/INGEST.md)
n_lines=0
while IFS= read -r line; do
    read -ra words <<<"$line"
    name=${words[3]}
    "$bin/fineline" "${words[@]:1}" --endpoint "$releases" --dry-run --json >"$work/preview.json" 2>"$work/err" || cat "$work/err"
    n_lines=$((n_lines + 1))
    check "$name: $(python3 "$ingest/releases.py" told "$name" "$work/preview.json")" python3 "$ingest/releases.py" check "$name" "$work/preview.json"
done < <(python3 "$ingest/releases.py" lines docs/INGEST.md)
check "$n_lines lines are there" test "$n_lines" -ge 6
stop_server
