# FSDP on two ranks: each pushes its own shard, one commit publishes; killed between the two, nothing is visible.
# shellcheck shell=bash

echo "== FSDP, two ranks (torchrun, gloo)"
log=$work/ranks.log
out=$work/fsdp
launch() { torchrun --standalone --nproc_per_node 2 "$scripts/multi_rank.py" "$@" >>"$log" 2>&1; }
launch lab/fsdp "$text" "$out"
check "two steps from two ranks" test "$(steps lab/fsdp)" = "5 10"
check "one step has the files of both" test "$(fineline ls lab/fsdp@10 --json | grep -c '"path"')" = 6
check "the weights digest is that of both shards together" digest_is lab/fsdp@10 "$out"/rank-*/step-10/*.safetensors
fact() { fineline show lab/fsdp@10 --json | field "$1"; }
check "tokens and the mean loss are there: $(fact tokens), $(fact loss)" test "$(fact tokens) $(fact evaluable)" = "5120 True"
check "both spools are empty" eval 'empty "$out/spool-0" && empty "$out/spool-1"'
fineline wait lab/fsdp --timeout 300 >/dev/null 2>&1
check "each step has its score" test "$(scored lab/fsdp)" = "5 10"

fineline run create lab/cut >/dev/null
kill -STOP "$server"
torchrun --standalone --nproc_per_node 2 "$scripts/multi_rank.py" lab/cut "$text" "$work/cut" >>"$log" 2>&1 & trainer=$!
all_taken() { [[ $(find "$work"/cut/spool-* -mindepth 1 -maxdepth 1 -name '0*' 2>/dev/null | wc -l) = 4 ]]; }
check "a job whose steps wait in both spools" eventually 180 all_taken
ranks=$(pgrep -P "$trainer")
# shellcheck disable=SC2086
kill -KILL "$trainer" $ranks
wait "$trainer" 2>/dev/null || true
trainer=
kill -CONT "$server"
python3 "$scripts/fineline_push.py" lab/cut "$work/cut/spool-1" --rank 1 2>>"$log"
check "killed; one rank's spool alone publishes nothing" test "$(fineline ls lab/cut --json)" = "[]"
python3 "$scripts/fineline_push.py" lab/cut "$work/cut/spool-0" 2>>"$log"
check "with the other's both steps are there" test "$(steps lab/cut)" = "5 10"
check "whole" digest_is lab/cut@5 "$work"/cut/rank-*/step-5/*.safetensors
