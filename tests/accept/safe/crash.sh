# kill -9 of the real programs at each fail point, on real steps: sound at once, never early, and the same command ends it.
# shellcheck shell=bash

echo "== kill -9 at every fail point"
n_ready() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["n_checkpoints"])' "$work/scrub.json"; }

for point in chunk.intended chunk.intended:8 chunk.stored chunk.attached commit.before_commit verify.reading_back ready.published ready.before_commit; do
    dir=$work/crash-$point
    start_server "$dir" --evaluator off
    fineline run create lab/run >/dev/null
    fineline push lab/run 512 "$(step_dir 512)" >/dev/null
    stop_server
    FINELINE_KILL_AT=$point start_server "$dir" --evaluator off
    fineline push lab/run 3000 "$(step_dir 3000)" >/dev/null 2>&1 &
    pusher=$!
    check "$point: the server died there" server_killed
    kill -9 $pusher 2>/dev/null || true; wait $pusher 2>/dev/null || true
    check "$point: what the dead server left is sound" sound "$dir"
    early=$(n_ready)
    start_server "$dir" --evaluator off
    fineline push lab/run 3000 "$(step_dir 3000)" >/dev/null
    check "$point: not ready early ($early of 1), then the repeated push ends and both steps are identical" \
        eval 'test $early = 1 && identical lab/run@512 "$(step_dir 512)" && identical lab/run@3000 "$(step_dir 3000)"'
    stop_server
    check "$point: sound in the end" sound "$dir"
    rm -rf "$dir"
done

for point in delete.before_commit collect.released collect.condemned collect.deleting collect.object_deleted collect.object_deleted:7; do
    dir=$work/crash-$point
    start_server "$dir" --evaluator off
    fineline run create lab/run >/dev/null
    for step in 512 3000; do fineline push lab/run $step "$(step_dir $step)" >/dev/null; done
    [[ $point == delete.* ]] || fineline delete lab/run@512 >/dev/null
    stop_server
    FINELINE_KILL_AT=$point start_server "$dir" --evaluator off --grace 1s
    [[ $point != delete.* ]] || (timeout -s KILL 5 "$bin/fineline" delete lab/run@512 >/dev/null 2>&1 || true)
    check "$point: the server died there" server_killed
    check "$point: what the dead server left is sound" sound "$dir"
    start_server "$dir" --evaluator off --grace 1s
    [[ $point != delete.* ]] || fineline delete lab/run@512 >/dev/null
    all_live() { test "$(gc live.n)" = "$(find "$dir/store" -type f | wc -l)" && test "$(gc waiting.n)" = 0; }
    check "$point: the rest is collected, step 3000 is identical" eval 'eventually 60 all_live && identical lab/run@3000 "$(step_dir 3000)"'
    stop_server
    check "$point: sound in the end" sound "$dir"
    rm -rf "$dir"
done

dir=$work/crash-migrate
mkdir "$dir"
FINELINE_KILL_AT=migrate.before_commit check "migrate.before_commit: the server died there" \
    killed "$bin/fineline-registry" serve --listen 127.0.0.1:0 --data "$dir" --evaluator off
start_server "$dir" --evaluator off
check "migrate.before_commit: the next start migrates and serves" fineline run list

# A step of its own for each: of one that is there already nothing would be sent.
steps=(512 750 1000 1250 1500 1750 2000)
fineline run create lab/client >/dev/null
for point in push.checked push.opened push.chunk_sent push.chunk_sent:8 push.file_added push.sent push.committed; do
    step=${steps[0]}
    steps=("${steps[@]:1}")
    FINELINE_KILL_AT=$point check "$point: the client died there" killed "$bin/fineline" push lab/client "$step" "$(step_dir "$step")"
    fineline push lab/client "$step" "$(step_dir "$step")" >/dev/null
    check "$point: the repeated command ends, identical" identical "lab/client@$step" "$(step_dir "$step")"
done
stop_server
check "sound after all of them" sound "$dir"
