#!/usr/bin/env bash
# A registry with as many rows as a lab has after years, on either engine: how long `missing` takes for 10,000 digests by a
# token that is no administrator's, how long publishing a checkpoint of 2,000 chunks takes, and how much memory and time
# a collection's mark needs. Writes docs/benchmarks/scale.md; exits non-zero when a bound is missed.
#
#   tests/bench/scale.sh [ENGINE ...]      engines: sqlite postgres
#   CHECKPOINTS=5000 CHUNKS=2000           how many checkpoints, of how many chunks each; these when not set
#   WORK=DIR                               where the databases are made (5 GB each); a temporary folder when not set
#
# The rows are made by a script, not pushed: the content that they name is not in the store, and nothing here reads it.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
engines=("$@")
((${#engines[@]})) || engines=(sqlite postgres)
# shellcheck source=tests/harness/postgres.sh
source tests/harness/postgres.sh
for engine in "${engines[@]}"; do
    if [[ $engine == postgres ]] && ! postgres_program initdb >/dev/null; then
        echo "skipped: bench/scale: there is no postgresql"
        exit 0
    fi
done
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --locked --quiet --release -p fineline-registry
work=$(mktemp -d "${WORK:-${TMPDIR:-/tmp}}/fineline-scale.XXXXXX")
chmod 755 "$work"
cleanup() {
    stop_postgres
    rm -rf "$work"
}
trap cleanup EXIT
status=0
for engine in "${engines[@]}"; do
    database=
    if [[ $engine == postgres ]]; then
        start_postgres "$(mktemp -d "${TMPDIR:-/tmp}/fineline-postgres.XXXXXX")" -c fsync=on -c shared_buffers=2GB -c max_wal_size=8GB
        psql --quiet "${FINELINE_TEST_POSTGRES/\{database\}/postgres}" -c 'CREATE DATABASE scale'
        database=${FINELINE_TEST_POSTGRES/\{database\}/scale}
        export POSTGRES_LOG=$postgres_dir/postgres.log
    fi
    python3 "$root/tests/bench/scale/run.py" "$CARGO_TARGET_DIR/release/fineline-registry" "$work/$engine" \
        "${CHECKPOINTS:-5000}" "${CHUNKS:-2000}" "$work/$engine.json" "$database" || status=1
    rm -rf "${work:?}/$engine"
    if [[ $engine == postgres ]]; then stop_postgres; fi
done
python3 "$root/tests/bench/scale/page.py" "$work"/*.json >"$work/scale.md"
if [[ ${CHECKPOINTS:-5000}.${CHUNKS:-2000} == 5000.2000 && ${#engines[@]} == 2 ]]; then
    mkdir -p docs/benchmarks
    cp "$work/scale.md" docs/benchmarks/scale.md
else
    cat "$work/scale.md"
fi
exit $status
