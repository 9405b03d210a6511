# Backups beside pushes, deletions and collections with a grace of seconds; the last and two before it are restored.
# shellcheck shell=bash

echo "== backups beside pushes, deletions and collections"
place=$work/backups
fineline run create lab/busy >/dev/null
: >"$work/failures"
# Steps of their own content come and go: what one deletion leaves is collected some seconds later.
(
    at=0
    while [[ ! -e $work/enough ]]; do
        at=$((at + 1))
        python3 tests/full/keep/alter.py "$(step_dir 1000)" "$work/altered" $((at % 255 + 1))
        fineline push lab/busy $at "$work/altered" >/dev/null 2>&1 || echo "push $at" >>"$work/failures"
        ((at < 3)) || fineline delete "lab/busy@$((at - 2))" >/dev/null 2>&1 || echo "delete $at" >>"$work/failures"
        echo $at >"$work/pushed"
    done
) &
background+=($!)
(while [[ ! -e $work/enough ]]; do fineline storage gc --json >>"$work/collected" 2>/dev/null || echo gc >>"$work/failures"; done) &
background+=($!)
made=0 ids=() begun=$SECONDS
while ((SECONDS - begun < ${KEEP_SECONDS:-40})); do
    id=$(registry backup --data "$dir" --to "$place" 2>>"$work/backup.err") && made=$((made + 1)) && ids+=("$id") ||
        echo backup >>"$work/failures"
    [[ -n ${first_bytes:-} ]] || first_bytes=$(du -sb "$place" | cut -f1)
    # Collection, which waits for a backup, has its turn.
    sleep 1
done
# One that takes longer than the grace: stopped behind its snapshot while everything that goes is deleted or waits for it.
FINELINE_STOP_AT=backup.snapshot "$bin/fineline-registry" backup --data "$dir" --to "$place" >"$work/slow" 2>>"$work/backup.err" &
slow=$!
is_stopped() { [[ $(ps -o stat= -p $slow) == T* ]]; }
for _ in $(seq 100); do is_stopped && break; sleep 0.1; done
check "a backup stands still behind its snapshot for 14 s, the grace is 6 s" is_stopped
sleep 14
kill -CONT $slow
wait $slow || echo "slow backup" >>"$work/failures"
made=$((made + 1)) slow=$(cat "$work/slow")
n_tried=$made
touch "$work/enough"
wait "${background[@]}"
background=()
gone=$(metric fineline_frames_deleted_total)
rounds=$(grep -c '"dry_run": false' "$work/collected")
check "$made backups, none of them failed, beside $(cat "$work/pushed") pushes and $rounds collections that deleted $gone frames" \
    test "$made" -ge 3 -a "$gone" -gt 0 -a ! -s "$work/failures"
check "each of the $n_tried backups is listed" test "$(registry backup --to "$place" --list | wc -l)" = "$n_tried"
# From here on nothing but these commands changes anything: the embedded evaluator's token comes and goes with its server.
fineline run delete lab/busy --force >/dev/null
stop_server
start_server "$dir" --evaluator off --grace 6s
quiet registry backup --data "$dir" --to "$place"
bytes=$(du -sb "$place" | cut -f1)
begun=$(date +%s%N)
registry backup --data "$dir" --to "$place" --json >"$work/last.json" 2>/dev/null
check "one more takes $((($(date +%s%N) - begun) / 1000000)) ms and brings $(($(du -sb "$place" | cut -f1) - bytes)) bytes, the first brought $first_bytes" \
    test $(($(du -sb "$place" | cut -f1) - bytes)) -lt $((first_bytes / 50))
check "and no frame" test "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["frames"]["n_copied"])' "$work/last.json")" = 0
tell "$work/told"
stop_server
check "the registry itself is sound" sound --data "$dir"

last=$(field id <"$work/last.json")
for id in "${ids[0]}" "${ids[${#ids[@]} / 2]}" "$slow" "$last"; do
    registry restore --from "$place" --backup "$id" --data "$work/restored-$id" >/dev/null 2>&1
    check "$id is restored and sound" sound --data "$work/restored-$id"
    echo "    $(scrubbed)"
done
again restored --database "sqlite://$work/restored-$last/fineline.db" --store "file://$work/restored-$last/store"
check "a second restore onto it is refused" refused "is not empty" registry restore --from "$place" --data "$work/restored-$last"
before=$(find "$place/frames" -type f | wc -l)
registry backup --data "$dir" --to "$place" --keep-last 1 --verify >/dev/null 2>&1
check "with --keep-last 1 one backup is left, and $(find "$place/frames" -type f | wc -l) of $before frames" \
    test "$(registry backup --to "$place" --list | wc -l)" = 1 -a "$(find "$place/frames" -type f | wc -l)" -lt "$before"
registry restore --from "$place" --data "$work/restored-pruned" >/dev/null 2>&1
check "it is restored and sound" sound --data "$work/restored-pruned"

victim=$(find "$work/backups/frames" -type f | sort | sed -n 1p)
printf 'x' | dd of="$victim" bs=1 seek=20 conv=notrunc status=none
check "a damaged frame of a backup is named" refused "damaged: frame $(basename "$victim" | cut -c1-8)" \
    registry restore --from "$place" --data "$work/restored-damaged"
check "and mended by the next backup with --verify" quiet registry backup --data "$dir" --to "$place" --verify
registry restore --from "$place" --data "$work/restored-mended" >/dev/null 2>&1
check "which is restored and sound" sound --data "$work/restored-mended"
