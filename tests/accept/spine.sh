#!/usr/bin/env bash
# The spine on real input: push the real run over HTTP, see it evaluated by itself with lm-eval's own numbers, pull it
# back byte for byte, and survive kill -9 of either side. Prints its figures; exits non-zero when one falls short.
#
#   tests/accept/spine.sh [PART ...]     parts: run bin refusals kill (all by default)
#
# Needs the folder `shared` beside the clone; says so and ends well where it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
shared=$(cd .. && pwd)/shared
data=$shared/data
if [[ ! -d $data/run ]]; then
    echo "skipped: accept/spine: there is no ../shared/data beside the clone"
    exit 0
fi
parts=("$@")
((${#parts[@]})) || parts=(run bin refusals kill)

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --release --locked --quiet -p fineline-registry -p fineline-client
bin=$CARGO_TARGET_DIR/release
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-spine.XXXXXX")
server=
cleanup() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"

for part in "${parts[@]}"; do
    # shellcheck source=/dev/null
    source "$root/tests/accept/spine/$part.sh"
done
finish
