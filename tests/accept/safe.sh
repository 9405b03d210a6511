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
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-safe.XXXXXX")
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
link_programs_under_test

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

for part in "${parts[@]}"; do
    # shellcheck source=/dev/null
    source "$root/tests/accept/safe/$part.sh"
done
finish
