#!/usr/bin/env bash
# Keeping and moving on the real run: backups beside pushes, deletions and collections, each of them restored and whole; then
# the registry moves from SQLite to PostgreSQL, killed in the middle and continued. Every step comes back bit by bit, with
# its scores, sample logs and tokens. Prints a line a check with its figures; exits non-zero when one falls short.
#
#   tests/full/keep.sh [--install]      --install: PostgreSQL and Python 3, where they are missing (Debian packages)
#
# The part of S3 needs Garage (`$GARAGE`, PATH, or where cargo installs) and says so where there is none.
# Needs the folder `shared` beside the clone; says so and ends well where it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
shared=$(cd .. && pwd)/shared
data=$shared/data
if [[ ! -d $data/run ]]; then
    echo "skipped: full/keep: there is no ../shared/data beside the clone"
    exit 0
fi
# shellcheck source=tests/harness/postgres.sh
source "$root/tests/harness/postgres.sh"
if [[ ${1:-} == --install ]]; then
    missing=()
    postgres_program initdb >/dev/null && command -v psql >/dev/null || missing+=(postgresql)
    command -v python3 >/dev/null || missing+=(python3)
    if ((${#missing[@]})); then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-keep.XXXXXX")
chmod 755 "$work"
export FINELINE_LOG=warn
server=
garage_pid=
background=()
cleanup() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    touch "$work/enough"
    [[ -z $garage_pid ]] || kill "$garage_pid" 2>/dev/null || true
    ((${#background[@]} == 0)) || kill "${background[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    stop_postgres || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
link_programs_under_test
# shellcheck source=tests/harness/garage.sh
source "$root/tests/harness/garage.sh"

registry() { "$bin/fineline-registry" "$@"; }
quiet() { "$@" >/dev/null 2>&1; }

# n_identical: how many steps of the real run come back bit by bit.
n_identical() {
    local step n=0
    for step in "${steps[@]}"; do identical "lab/small@$step" "$(step_dir "$step")" >/dev/null && n=$((n + 1)); done
    echo $n
}

# tell FILE: everything that the API tells of lab/small and lab/scored, and the tokens.
tell() {
    {
        fineline scores lab/small --json
        fineline scores lab/scored --json
        fineline ls lab/small --json
        fineline ls lab/scored --json
        # Asking is a use of a token, which they tell.
        api GET /tokens | sed -E 's/"last_used_at": ?"[^"]*"/"last_used_at":null/g'
        api GET "/runs/lab/scored/events?limit=1000"
    } >"$1"
}

# sound OPTION...: scrub reads every byte and finds nothing.
sound() { registry scrub "$@" --json >"$work/scrub.json" 2>/dev/null; }
scrubbed() { python3 -c 'import json, sys
report = json.load(open(sys.argv[1]))
print(report["n_checkpoints"], "checkpoints,", report["n_chunks"], "chunks,", report["read_bytes"], "bytes")' "$work/scrub.json"; }

# again NAME OPTION...: a server with these options has everything that the first one had.
again() {
    local name=$1
    shift
    start_server "$work/served-$name" --evaluator off "$@"
    FINELINE_TOKEN=$token
    check "$name: the first administrator's token works" quiet fineline run list
    tell "$work/told-$name"
    check "$name: scores, checkpoints, events and tokens are the same" \
        python3 tests/full/keep/same.py "$work/told" "$work/told-$name"
    local n
    n=$(n_identical)
    check "$name: $n of ${#steps[@]} steps come back bit by bit" test "$n" = "${#steps[@]}"
    stop_server
}

for part in fill backup move s3; do
    # shellcheck source=/dev/null
    source "$root/tests/full/keep/$part.sh"
done
finish
