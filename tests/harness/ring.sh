# What the rings share: parts that are run, timed, kept and counted. Sourced, never run.
# shellcheck shell=bash

# Build artefacts stay outside of the clone, so that a fresh clone compiles warm.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
export CARGO_TERM_COLOR=never
# What is compiled once needs no second copy of itself: it is more than half of the disk that a ring takes.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
log_dir=$(mktemp -d)
trap 'rm -rf "$log_dir"' EXIT
failed_parts=()
part_names=()

say() { printf '\n== %s\n' "$*"; }

# part NAME COMMAND...: runs a part, keeps its output for the counts at the end.
part() {
    local name=$1
    shift
    say "$name: $*"
    part_names+=("$name")
    local begun=$SECONDS
    "$@" 2> >(tee "$log_dir/$name.err" >&2) | tee "$log_dir/$name.log"
    if ((PIPESTATUS[0] == 0)); then
        echo "== $name: ok in $((SECONDS - begun)) s"
    else
        echo "== $name: FAILED after $((SECONDS - begun)) s"
        failed_parts+=("$name")
    fi
}
