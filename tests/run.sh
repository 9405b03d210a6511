#!/usr/bin/env bash
# The quick ring: unit, property, doc and integration tests, then the acceptance scripts.
#
#   tests/run.sh             runs the tests
#   tests/run.sh --install   installs what is missing first (Debian packages: C and C++ compilers, curl, Python 3 with venv, procps,
#                            PostgreSQL, faketime)
#   tests/run.sh --lint      formatting, clippy and the dependency guards first
#
# The tests of the registry run on SQLite and on PostgreSQL, and the counts of each are printed by module.
#
# Ends with plain counts of what ran, failed and was skipped, and why. In CI (CI=true) a skip that does not stand in
# tests/allowed-skips.txt is a failure.
set -uo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/harness/ring.sh
source tests/harness/ring.sh
# shellcheck source=tests/harness/postgres.sh
source tests/harness/postgres.sh

install_missing() {
    local wanted=()
    command -v cc >/dev/null && command -v c++ >/dev/null || wanted+=(build-essential)
    command -v curl >/dev/null || wanted+=(curl)
    command -v openssl >/dev/null || wanted+=(openssl)
    command -v python3 >/dev/null || wanted+=(python3)
    python3 -c 'import ensurepip' 2>/dev/null || wanted+=(python3-venv)
    command -v pgrep >/dev/null || wanted+=(procps)
    postgres_program initdb >/dev/null && command -v psql >/dev/null || wanted+=(postgresql)
    if ((${#wanted[@]})); then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}" || return 1
    fi
    # The test of clocks that are off skips without it, and says so.
    command -v faketime >/dev/null || apt-get install -y -qq --no-install-recommends faketime ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends faketime; } || true
    command -v cargo >/dev/null || {
        echo "there is no Rust toolchain: install one with rustup, then run this again" >&2
        return 1
    }
}

# What the first part has built of the registry's tests, as `FOLDER PROGRAM` a line.
registry_tests() {
    cargo test --workspace --locked --no-run --message-format=json 2>/dev/null | python3 -c '
import json, pathlib, sys
for line in sys.stdin:
    built = json.loads(line)
    if built["reason"] == "compiler-artifact" and built["profile"]["test"] and built["executable"]:
        wanted = {("fineline_registry", "lib"), ("it", "test")}
        folder = pathlib.Path(built["manifest_path"]).parent
        if (built["target"]["name"], built["target"]["kind"][0]) in wanted and folder.name != "format":
            print(folder, built["executable"])'
}

# The same tests again, on a server that is there for them alone.
tests_on_postgres() {
    local status=0 folder program programs
    # In this subshell of the part: an interruption ends the server too.
    trap stop_postgres EXIT
    programs=$(registry_tests)
    (($(wc -l <<<"$programs") == 2)) || { echo "two test programs were to be built, not: $programs" >&2; return 1; }
    # Not below the logs, where only their owner looks.
    start_postgres "$(mktemp -d "${TMPDIR:-/tmp}/fineline-postgres.XXXXXX")" || return 1
    while read -r folder program; do
        (cd "$folder" && "$program" --nocapture) || status=1
    done <<<"$programs"
    stop_postgres
    return $status
}

# Which crate may not know which: what keeps the rooms apart.
guard_dependencies() {
    local status=0
    forbid() { # PACKAGE PATTERN CARGO-TREE-OPTIONS...
        local package=$1 pattern=$2 tree found
        shift 2
        tree=$(cargo tree -p "$package" "$@" -e normal --prefix none --locked) || return 1
        if found=$(awk '{print $1}' <<<"$tree" | sort -u | grep -vx "$package" | grep -xE "$pattern"); then
            echo "$package depends on $(tr '\n' ' ' <<<"$found")and may not" >&2
            status=1
        else
            echo "$package $*: none of $pattern"
        fi
    }
    local candle='candle-.*|tokenizers|gemm.*|fineline-evaluator'
    forbid fineline-registry "$candle|fineline-client" --no-default-features || status=1
    # A bucket that suites read their data from is one thing, the registry's store another.
    forbid fineline-client "$candle|axum|sea-orm.*|sqlx.*|fineline-registry|fineline-migrations" || status=1
    forbid fineline-client "object_store" --no-default-features || status=1
    forbid fineline-evaluator 'axum|sea-orm.*|sqlx.*|object_store|fineline-registry|fineline-migrations' || status=1
    forbid fineline-format 'tokio|reqwest|axum|candle-.*|sea-orm.*|fineline-(api|client|registry|evaluator|migrations)' || status=1
    forbid fineline-migrations 'fineline-.*' || status=1
    return $status
}

install=0 lint=0
for argument in "$@"; do
    case $argument in
        --install) install=1 ;;
        --lint) lint=1 ;;
        *)
            echo "unknown option \`$argument\`: --install or --lint" >&2
            exit 2
            ;;
    esac
done

if ((install)); then install_missing || exit 1; fi
if ((lint)); then
    part fmt cargo fmt --all --check
    part guards guard_dependencies
    part clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
fi
part tests cargo test --workspace --locked -- --nocapture
if postgres_program initdb >/dev/null && command -v psql >/dev/null; then
    part tests-postgres tests_on_postgres
    part engines python3 tests/harness/engines.py sqlite="$log_dir/tests.log" postgres="$log_dir/tests-postgres.log"
else
    echo "skipped: postgres: there is no PostgreSQL server: install \`postgresql\`" >"$log_dir/postgres.log"
fi
for script in tests/accept/*.sh; do
    part "accept-$(basename "$script" .sh)" "$script"
done

say "counts"
cat "$log_dir"/*.log "$log_dir"/*.err >"$log_dir/all"
# cargo prints a line a test binary: "test result: ok. 12 passed; 0 failed; …".
read -r passed failed < <(awk '/^test result:/ {for (i = 1; i < NF; i++) {if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i}} END {print p + 0, f + 0}' "$log_dir/all")
grep -hoE 'skipped: .*' "$log_dir/all" | sort | uniq -c >"$log_dir/skips" || true
skipped=$(awk '{n += $1} END {print n + 0}' "$log_dir/skips")
cat "$log_dir/skips"
echo "parts: ${part_names[*]}"
if ((${#failed_parts[@]})); then echo "failed parts: ${failed_parts[*]}"; fi
if [[ ${CI:-} == true ]] && ((skipped)); then
    if sed 's/^ *[0-9]* //' "$log_dir/skips" | grep -vxFf tests/allowed-skips.txt; then
        echo "the skips above are not allowed in CI"
        failed_parts+=(skips)
    fi
fi
echo "$((passed + ${#part_names[@]} - ${#failed_parts[@]})) passed, $((failed + ${#failed_parts[@]})) failed, $skipped skipped"
((${#failed_parts[@]} == 0 && failed == 0))
