#!/usr/bin/env bash
# A bucket as the store, for real: Garage, the server and the command line, and a step of the real run that goes by way of
# the bucket and through the server. Counts what passes the server, checks every byte, and that collection empties the
# bucket. Prints a line a check with its figures; exits non-zero when one falls short.
#
#   tests/full/s3.sh     needs garage (`$GARAGE`, PATH, or where cargo installs) and the folder `shared` beside the clone;
#                        says so and ends well where one is missing
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
data=$(cd .. && pwd)/shared/data
# shellcheck source=tests/harness/garage.sh
source "$root/tests/harness/garage.sh"
if [[ ! -x $garage ]]; then
    echo "skipped: full/s3: $no_garage"
    exit 0
fi
if [[ ! -d $data/run ]]; then
    echo "skipped: full/s3: there is no ../shared/data beside the clone"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-s3.XXXXXX")
server=
garage_pid=
counter=
cleanup() {
    for pid in $server $garage_pid $counter; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
link_programs_under_test

step=$data/run/step-003000
other=$data/run/step-000512
grace=30s
start_garage
store=s3://$bucket/lab
echo "== a bucket that can't be used is refused in words"
serve_refused() { refused "$1" "${@:2}" "$bin/fineline-registry" serve --listen 127.0.0.1:0 --evaluator off --data "$work/none"; }
check "an absent bucket is named" serve_refused 'bucket `absent`.*NoSuchBucket' env FINELINE_STORE=s3://absent
check "a wrong secret is no riddle" serve_refused 'credentials are refused' env FINELINE_STORE="$store" AWS_SECRET_ACCESS_KEY=hush-hush
check "and stands in no message" bash -c "! grep -rqE 'hush-hush|$AWS_SECRET_ACCESS_KEY' '$work/out' '$work/err'"

echo "== by way of the bucket"
start_server "$work/data" --evaluator off --store "$store" --grace "$grace"
# Clients meet the registry where every byte is counted.
python3 "$root/tests/full/s3/count.py" "${FINELINE_URL##*:}" "$work/passed" >"$work/counter" &
counter=$!
for _ in $(seq 200); do [[ -s $work/counter ]] && break || sleep 0.05; done
FINELINE_URL=http://127.0.0.1:$(cat "$work/counter")
passed() { cat "$work/passed"; }
field_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }
fineline run create lab/direct >/dev/null
fineline run create lab/through >/dev/null

before=$(passed)
fineline push lab/direct 3000 "$step" --json >"$work/push.json"
pushed=$(($(passed) - before)) sent=$(field_of "$work/push.json" sent_bytes) direct=$(field_of "$work/push.json" direct_bytes)
check "of $sent bytes of frames pushed $direct went to the bucket" test $((direct * 100)) -ge $((sent * 95))
check "$pushed bytes passed the registry: less than a tenth" test $((pushed * 10)) -lt "$sent"
before=$(passed)
fineline pull lab/direct@3000 "$work/pulled" --json >"$work/pull.json"
pulled=$(($(passed) - before)) received=$(field_of "$work/pull.json" received_bytes)
check "$pulled bytes passed it for a pull of $received: less than a tenth" test $((pulled * 10)) -lt "$received"
check "byte-identical" diff -r "$step" "$work/pulled"
read -r n_frames frame_bytes < <(in_bucket lab/frames/)
check "$n_frames frames of $frame_bytes bytes lie in the bucket" test "$frame_bytes" = "$sent"
check "nothing is left at staging places" test "$(in_bucket lab/staging/)" = "0 0"

echo "== through the server"
before=$(passed)
fineline push lab/through 512 "$other" --direct off --json >"$work/push.json"
sent=$(field_of "$work/push.json" sent_bytes)
check "all of $sent bytes passed the registry" test $(($(passed) - before)) -ge "$sent" -a "$(field_of "$work/push.json" direct_bytes)" = 0
rm -rf "$work/pulled"
before=$(passed)
FINELINE_DIRECT=off fineline pull lab/through@512 "$work/pulled" >/dev/null
check "and all of them back" test $(($(passed) - before)) -ge "$sent"
check "byte-identical" diff -r "$other" "$work/pulled"
rm -rf "$work/pulled"
fineline pull lab/through@512 "$work/pulled" >/dev/null
check "the same by way of the bucket" diff -r "$other" "$work/pulled"
rm -rf "$work/pulled"
fineline pull lab/direct@3000 "$work/pulled" --direct off >/dev/null
check "and the other one through the server" diff -r "$step" "$work/pulled"

echo "== check and collect"
sound() { "$bin/fineline-registry" "$1" --data "$work/data" --store "$store" --json >"$work/report.json" 2>/dev/null; }
check "fsck is clean" sound fsck
check "scrub reads $(sound scrub && field_of "$work/report.json" read_bytes) bytes and is clean" sound scrub
read -r n_frames frame_bytes < <(in_bucket lab/frames/)
live=$(fineline storage gc --json | python3 -c 'import json, sys; r = json.load(sys.stdin)["live"]; print(r["n"], r["stored_bytes"])')
check "the bucket has $n_frames objects of $frame_bytes bytes, the rows the same" test "$n_frames $frame_bytes" = "$live"
fineline delete lab/direct@3000 >/dev/null
collected() { fineline storage gc >/dev/null && [[ $(in_bucket lab/frames/ | cut -d' ' -f2) -lt $((frame_bytes * 6 / 10)) ]]; }
check "deleting a step gives its bytes back after the grace" eventually 120 collected
check "the other step is sound" sound scrub
fineline run delete lab/through --force >/dev/null
emptied() { fineline storage gc >/dev/null && [[ $(in_bucket lab/) == "0 0" ]]; }
check "deleting the rest empties the bucket, staging places too" eventually 120 emptied
check "no secret stands in the server's log" bash -c "! grep -qE '$AWS_SECRET_ACCESS_KEY|X-Amz-' '$work/data/stderr'"
stop_server
finish
