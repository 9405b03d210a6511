# The move from SQLite and a folder to PostgreSQL and another folder, killed at two points.
# shellcheck shell=bash

echo "== the move to PostgreSQL"
if ! start_postgres "$work/postgres" 2>"$work/postgres.err"; then
    echo "skipped: full/keep/move: $(head -1 "$work/postgres.err")"
    return 0
fi
url=${FINELINE_TEST_POSTGRES/\{database\}/moved}
psql --quiet "${FINELINE_TEST_POSTGRES/\{database\}/postgres}" -c 'CREATE DATABASE moved'
moving() { registry move --data "$dir" --database "$url" --store "$work/moved-store"; }
FINELINE_KILL_AT=keep.frame_copied:20 check "keep.frame_copied: the move died there" killed "$bin/fineline-registry" move \
    --data "$dir" --database "$url" --store "$work/moved-store"
check "the old place is sound and may be served" sound --data "$dir"
# The hold of the process that died runs out by itself.
begun=$SECONDS
code=1
while ((code && SECONDS - begun < 90)); do
    code=0
    FINELINE_KILL_AT=move.before_arrival registry move --data "$dir" --database "$url" --store "$work/moved-store" \
        >/dev/null 2>"$work/err" || code=$?
    ((code == 1)) || break
    sleep 1
done
check "move.before_arrival: it died there, $((SECONDS - begun)) s later" test "$code" = 137
check "from then on the old place is not served" refused "on its way to database" \
    registry serve --data "$dir" --listen 127.0.0.1:0
begun=$(date +%s%N)
moving >"$work/moved.txt" 2>"$work/err"
check "the same command ends it in $((($(date +%s%N) - begun) / 1000000)) ms" grep -q "every frame was read back" "$work/moved.txt"
check "as many rows here as there in all $(grep -c 'rows here' "$work/moved.txt") tables" \
    awk '/rows here/ && $2 != $5 {exit 1}' "$work/moved.txt"
awk '/rows here/ && $2 > 0 {printf "    %s %s", $1, $2} END {print ""}' "$work/moved.txt"
check "the old place says where it went" refused "moved to database" registry serve --data "$dir" --listen 127.0.0.1:0
check "the new place is sound" sound --data "$work/served-moved" --database "$url" --store "file://$work/moved-store"
echo "    $(scrubbed)"
again moved --database "$url" --store "file://$work/moved-store"
start_server "$work/served-moved" --evaluator cpu --database "$url" --store "file://$work/moved-store"
FINELINE_TOKEN=$token
fineline push lab/scored 1000 "$(step_dir 1000)" >/dev/null
check "a step that is pushed there is evaluated" fineline wait lab/scored --timeout 300
stop_server
check "a backup of it is restored into SQLite and sound" eval \
    'registry backup --data "$work/served-moved" --database "$url" --store "file://$work/moved-store" --to "$work/backups-moved" 2>/dev/null >/dev/null &&
     registry restore --from "$work/backups-moved" --data "$work/restored-moved" >/dev/null 2>&1 && sound --data "$work/restored-moved"'
