#!/usr/bin/env bash
# A registry with as many rows as a lab has after years, on either engine: how long `missing` takes for 10,000 digests by a
# token that is no administrator's, how long publishing a checkpoint of 2,000 chunks takes, and how much memory and time
# a collection's mark needs. Writes docs/benchmarks/scale.md; exits non-zero when a bound is missed.
#
#   tests/bench/scale.sh [ENGINE ...]      engines: sqlite postgres
#   CHECKPOINTS=5000 CHUNKS=2000           how many checkpoints, of how many chunks each; these when not set
#   WORK=DIR                               where the databases are made (5 GB each); a temporary folder when not set
#
# PostgreSQL is given what docs/OPERATIONS.md says: a quarter of the memory, in huge pages where the machine has so many
# (`sysctl vm.nr_hugepages=N` before, N of 2 MiB), which the page tells.
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
# In MiB, and what is free of huge pages.
buffers=$(awk '/^MemTotal/ { print int($2 / 4096) }' /proc/meminfo)
huge=$(awk '/^HugePages_Free/ { n = $2 } /^Hugepagesize/ { print int(n * $2 / 1024) }' /proc/meminfo)
# Beside the buffers it has tables of its own in them.
pages=off
((huge > buffers * 21 / 20)) && pages=on
if [[ $pages == off && " ${engines[*]} " == *" postgres "* ]]; then
    echo "PostgreSQL is slow without huge pages: \`sysctl vm.nr_hugepages=$((buffers * 11 / 20))\` before, 0 after"
fi
export POSTGRES_IS="shared_buffers ${buffers} MiB, huge_pages ${pages}"
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
        start_postgres "$(mktemp -d "${TMPDIR:-/tmp}/fineline-postgres.XXXXXX")" -c fsync=on \
            -c shared_buffers="${buffers}MB" -c huge_pages="$pages" -c max_wal_size=8GB
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
