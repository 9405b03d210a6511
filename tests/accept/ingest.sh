#!/usr/bin/env bash
# Checkpoints that come in by themselves, on the real run: from an independent Hub server that the real huggingface_hub was
# held against first, and from Garage; through a proxy that cuts, slows, refuses and lies; with the server killed twenty
# times. Prints a line a check with its figures; exits non-zero when one falls short.
#
#   tests/accept/ingest.sh [PART ...]     parts: hub names faults kills large bucket
#
# Needs the folder `shared` beside the clone; says so and ends well where it is missing. The part `bucket` needs garage, the
# real client pip (huggingface_hub 2.4.0, into a folder beside the build).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
shared=$(cd .. && pwd)/shared
data=$shared/data
if [[ ! -d $data/run ]]; then
    echo "skipped: accept/ingest: there is no ../shared/data beside the clone"
    exit 0
fi
parts=("$@")
((${#parts[@]})) || parts=(hub names faults kills large bucket)

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
export PYTHONDONTWRITEBYTECODE=1
ingest=$root/tests/accept/ingest
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-ingest.XXXXXX")
server=
garage_pid=
helpers=()
cleanup() {
    for pid in $server $garage_pid "${helpers[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
# shellcheck source=tests/harness/garage.sh
source "$root/tests/harness/garage.sh"
# shellcheck source=tests/accept/ingest/common.sh
source "$ingest/common.sh"
link_programs_under_test
python3 "$ingest/fill.py" "$data" "$work/hub" "$work/s3"

for part in "${parts[@]}"; do
    # shellcheck source=/dev/null
    source "$ingest/$part.sh"
done
finish
