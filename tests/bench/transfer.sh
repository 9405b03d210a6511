#!/usr/bin/env bash
# How fast push and pull are, beside the work that can't be left out and beside restic and cp; writes
# docs/benchmarks/transfer.md. Needs openssl and restic (Debian packages of those names), and a machine that does nothing else.
#
#   tests/bench/transfer.sh                        1 and 4 GiB, 3 rounds, to disk and to /dev/shm
#   tests/bench/transfer.sh --flat                 the memory of both ends at 1 and 8 GiB; fails when it is not flat
#
# MIB=256,1024   other sizes, in MiB     REPEAT=1    other rounds
# WORK=DIR       a folder on a disk; a fresh one below TMPDIR by default. Takes up to 2.8 times the largest size.
# BIN=DIR        programs that are there already, instead of building them
# OUT=FILE       another page
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
for program in openssl restic; do
    command -v "$program" >/dev/null || { echo "skipped: bench/transfer: there is no $program"; exit 0; }
done
[[ -n ${BIN:-} ]] || cargo build --release --locked --quiet -p fineline-registry -p fineline-client
cargo build --release --locked --quiet -p fineline-bench
made=
[[ -n ${WORK:-} ]] || made=$(mktemp -d "${TMPDIR:-/tmp}/fineline-transfer.XXXXXX")
trap '[[ -z $made ]] || rm -rf "$made"' EXIT
bench=("$CARGO_TARGET_DIR/release/transfer-bench" --bin "${BIN:-$CARGO_TARGET_DIR/release}" --work "${WORK:-$made}")
if [[ ${1:-} == --flat ]]; then
    "${bench[@]}" --mib "${MIB:-1024,8192}" flat
else
    "${bench[@]}" --mib "${MIB:-1024,4096}" time --repeat "${REPEAT:-3}" --notes tests/bench/notes.md \
        --out "${OUT:-docs/benchmarks/transfer.md}"
fi
