# A file of a gibibyte: memory of the server, and what lies on the disk beside the store. Sourced by ingest.sh.
# shellcheck shell=bash

echo "== a file of a gibibyte"
mkdir -p "$work/large/lab/large/step-1"
python3 "$ingest/large.py" "$work/large/lab/large/step-1" $((1 << 30))
start_helper large-hub "$ingest/hub_server.py" "$work/large"
large=http://127.0.0.1:$port_of_helper
# What the server writes beside its store goes below its data folder or here.
mkdir "$work/large-tmp"
TMPDIR=$work/large-tmp start_registry "$work/large-data"
fineline run create lab/large >/dev/null
begun=$SECONDS
fineline source add large hf://lab/large --run lab/large --endpoint "$large" --settle 0s --select 'step-*' >/dev/null
beside=0
while ! source_ended large; do
    now=$(du -sb --exclude store "$work/large-data" "$work/large-tmp" 2>/dev/null | awk '{n += $1} END {print int(n / 1048576)}')
    ((now <= beside)) || beside=$now
    ((SECONDS - begun < 240)) || break
    sleep 0.1
done
peak=$(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$server/status")
check "it came in $((SECONDS - begun)) s: $(source_states large)" source_is large "ready=1"
check "peak memory $peak MiB: under 512" test "$peak" -lt 512
check "at most $beside MiB lay on the disk beside the store: under 256" test "$beside" -lt 256
check "with the original's digest" same_files lab/large 1 "$work/large/lab/large/step-1"
sent=$(read_bytes "$work/large-hub.log") size=$(du -sb "$work/large/lab/large/step-1" | cut -f1)
check "the Hub sent $sent bytes of $size" test "$sent" -le $((size + (4 << 20)))
rm -rf "$work/large"

stop_server
