#!/usr/bin/env bash
# Nothing lost, nothing leaked, on the real run: possession, deletion and retention, collection beside pushes and reads,
# kill -9 at every fail point, planted corruptions, revisions, many ranks, leases under faults, and a full disk. Prints a
# line a check with its figures; exits non-zero when one falls short.
#
#   tests/accept/safe.sh [PART ...]     parts: possession delete collect crash damage revision ranks leases disk
#
# Needs the folder `shared` beside the clone; says so and ends well where it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
shared=$(cd .. && pwd)/shared
data=$shared/data
if [[ ! -d $data/run ]]; then
    echo "skipped: accept/safe: there is no ../shared/data beside the clone"
    exit 0
fi
parts=("$@")
((${#parts[@]})) || parts=(possession delete collect crash damage revision ranks leases disk)

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
# The real programs, linked with the fail points at which some of this kills them.
cargo build --locked --quiet -p fineline-tests --bins
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-safe.XXXXXX")
bin=$work/bin
mkdir "$bin"
ln -s "$CARGO_TARGET_DIR/debug/registry-under-test" "$bin/fineline-registry"
ln -s "$CARGO_TARGET_DIR/debug/client-under-test" "$bin/fineline"
ln -s "$CARGO_TARGET_DIR/debug/worker-under-test" "$bin/fineline-evaluator"
server=
mounted=
cleanup() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    [[ -z $mounted ]] || umount "$mounted" || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"

# step_dir STEP: the folder of a step of the real run.
step_dir() { printf '%s/run/step-%06d' "$data" "$1"; }

# identical RUN@REF DIR: what is pulled is what was pushed.
identical() {
    rm -rf "$work/pulled"
    fineline pull "$1" "$work/pulled" >/dev/null && diff -r "$2" "$work/pulled"
}

# store_bytes DIR: bytes of all objects of a data folder.
store_bytes() { find "$1/store" -type f -printf '%s\n' | awk '{n += $1} END {printf "%d", n}'; }

# gc FIELD: collects now and prints a number of the report, as `deleted.n`.
gc() {
    fineline storage gc --json | python3 -c 'import json, sys
report = json.load(sys.stdin)
for key in sys.argv[1].split("."): report = report[key]
print(report)' "$1"
}

# sound DIR: scrub reads every byte and finds nothing.
sound() { "$bin/fineline-registry" scrub --data "$1" --json >"$work/scrub.json" 2>/dev/null; }

# eventually SECONDS COMMAND...: it becomes so.
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

for part in "${parts[@]}"; do
    # shellcheck source=/dev/null
    source "$root/tests/accept/safe/$part.sh"
done
finish
