#!/usr/bin/env bash
# The pages in a real Chromium, over a registry that holds the real run with its scores, work under way, and work that
# failed: each page wide and narrow, light and dark. No console error, no request to elsewhere, nothing serious that axe-core
# finds, nothing that scrolls sideways but boxes of its own; curves, table and CSV have the same numbers.
#
#   tests/full/pages.sh               says what is missing and ends well
#   tests/full/pages.sh --install     installs it first (Debian packages: chromium, nodejs, npm)
#   tests/full/pages.sh --pictures    renews docs/pages
#
# Playwright, axe-core and sharp come from npm into a temporary folder. Needs the folder `shared` beside the clone.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
data=$(cd .. && pwd)/shared/data
install=
pictures=
for option in "$@"; do
    case $option in
        --install) install=1 ;;
        --pictures) pictures=$root/docs/pages ;;
    esac
done
if [[ ! -d $data/run ]]; then
    echo "skipped: full/pages: there is no ../shared/data beside the clone"
    exit 0
fi
missing=()
for program in chromium:chromium node:nodejs npm:npm python3:python3 curl:curl; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
if ((${#missing[@]})) && [[ -n $install ]]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
elif ((${#missing[@]})); then
    echo "skipped: full/pages: there is no ${missing[*]}"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --locked --quiet -p fineline-registry -p fineline-client
bin=$CARGO_TARGET_DIR/debug
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-pages.XXXXXX")
server=
cleanup() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
if ! npm install --prefix "$work/npm" --no-audit --no-fund --no-save --silent \
    playwright-core@1.65.1 axe-core@4.14.1 sharp@0.35.5 >"$work/npm.log" 2>&1; then
    echo "skipped: full/pages: npm gives no playwright-core, axe-core and sharp"
    exit 0
fi

# A namespace and a name as long as they may be.
long=$(printf 'a-very-long-name-that-goes-on-%.0s' 1 2 3 4)
long=${long:0:95}x
pictures=${pictures:-$work/pictures}
mkdir -p "$pictures"
# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
for part in fill waiting; do
    # shellcheck source=/dev/null
    source "$root/tests/full/pages/$part.sh"
done
echo "== the pages"
check "every page is as it should be" env NODE_PATH="$work/npm/node_modules" CHROMIUM="$(command -v chromium)" \
    LONG_RUN="$long/$long" node tests/full/pages/browse.cjs "$FINELINE_URL" "$work/data/admin.token" "$pictures"
stop_server
finish
