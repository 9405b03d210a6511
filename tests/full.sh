#!/usr/bin/env bash
# Everything: the quick ring with its lints, then the parts that are too slow for it.
#
#   tests/full.sh [OPTION...]    options of tests/run.sh beside --lint
#   FUZZ_SECONDS=600             how long each fuzz target runs; 60 when it is not set
#   FUZZ_ONLY=1                  the fuzz targets alone
#
# Beside the quick ring: everything that tests/full has a script for, 400 sequences of the store's model on each engine, the
# registry with many rows, the memory of long transfers, and the fuzz targets. No skip is allowed here: what could not run is
# named at the end with the reason, and the exit is not 0. The registry with many rows wants huge pages (tests/bench/scale.sh).
#
# Fuzzing needs cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler. What it finds lies in
# tests/fuzz/artifacts; the inputs that it grows are kept beside the build and are where the next run begins.
set -uo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/harness/ring.sh
source tests/harness/ring.sh
# shellcheck source=tests/harness/postgres.sh
source tests/harness/postgres.sh

# Sanitizers are not stable, and our code needs nothing else that is not.
export RUSTC_BOOTSTRAP=1
fuzz_dir=tests/fuzz
fuzz_target_dir=$CARGO_TARGET_DIR/fuzz
skips=()

# What a target may take: seconds for one input, and memory, of which no single allocation may have more than a half.
limits=(-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -max_len=65536)

fuzz() { # TARGET
    local corpus=$fuzz_target_dir/corpus/$1
    mkdir -p "$corpus"
    CARGO_TARGET_DIR=$fuzz_target_dir cargo fuzz run --fuzz-dir "$fuzz_dir" "$1" "$corpus" "$fuzz_dir/corpus/$1" -- \
        "${limits[@]}" -max_total_time="${FUZZ_SECONDS:-60}" -print_final_stats=1 -verbosity=0
}

model_on_postgres() {
    trap stop_postgres EXIT
    start_postgres "$(mktemp -d "${TMPDIR:-/tmp}/fineline-postgres.XXXXXX")" || return 1
    PROPTEST_CASES=400 cargo test --locked -p fineline-registry --lib model
    local status=$?
    stop_postgres
    return $status
}

if [[ ${FUZZ_ONLY:-} != 1 ]]; then
    # The toolchain's own rules hold for everything but the sanitizers.
    unset RUSTC_BOOTSTRAP
    part quick tests/run.sh --lint "$@"
    for script in tests/full/*.sh; do
        part "$(basename "$script" .sh)" "$script" "$@"
    done
    # Their bounds are of a machine that does nothing else.
    part scale tests/bench/scale.sh
    part flat tests/bench/transfer.sh --flat
    part model env PROPTEST_CASES=400 cargo test --locked -p fineline-registry --lib model
    part model-postgres model_on_postgres
    export RUSTC_BOOTSTRAP=1
fi
part fuzz-fmt cargo fmt --manifest-path "$fuzz_dir/Cargo.toml" --check
targets=$(CARGO_TARGET_DIR=$fuzz_target_dir cargo fuzz list --fuzz-dir "$fuzz_dir" 2>/dev/null) || targets=
if ! cargo fuzz --version >/dev/null 2>&1; then
    skips+=("fuzz: there is no cargo-fuzz: \`cargo install cargo-fuzz --locked\`")
elif ! command -v c++ >/dev/null; then
    skips+=("fuzz: there is no C++ compiler for libFuzzer")
elif [[ -z $targets ]]; then
    echo "tests/fuzz lists no target" >&2
    failed_parts+=(fuzz)
else
    for target in $targets; do
        part "fuzz-$target" fuzz "$target"
    done
fi

say "counts"
for target in $targets; do
    executed=$(grep -hoE 'number_of_executed_units: *[0-9]+' "$log_dir/fuzz-$target".* 2>/dev/null | grep -oE '[0-9]+$')
    echo "fuzz-$target: ${executed:-0} executions"
done
for skip in "${skips[@]}"; do echo "skipped: $skip"; done >"$log_dir/fuzz.log"
grep -hoE 'skipped: .*' "$log_dir"/*.log "$log_dir"/*.err | sort -u >"$log_dir/skips"
cat "$log_dir/skips"
n_skips=$(wc -l <"$log_dir/skips")
echo "parts: ${part_names[*]}"
if ((${#failed_parts[@]})); then echo "failed parts: ${failed_parts[*]}"; fi
echo "$((${#part_names[@]} - ${#failed_parts[@]})) parts passed, ${#failed_parts[@]} failed, $n_skips could not run"
((${#failed_parts[@]} == 0 && n_skips == 0))
