#!/usr/bin/env bash
# Behind nginx with TLS, by the very configuration that docs/OPERATIONS.md gives: logging in with a browser's means,
# push and pull by the real client, and what is believed of a proxy and of nobody else.
#
#   tests/full/proxy.sh             says what is missing and ends well
#   tests/full/proxy.sh --install   installs it first (Debian packages: nginx-light, openssl, curl, Python 3, chromium-driver)
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
missing=()
for program in nginx:nginx-light openssl:openssl curl:curl python3:python3 chromedriver:chromium-driver; do
    PATH=$PATH:/usr/sbin command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
if ((${#missing[@]})) && [[ ${1:-} == --install ]]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
elif ((${#missing[@]})); then
    echo "skipped: full/proxy: there is no ${missing[*]}"
    exit 0
fi
PATH=$PATH:/usr/sbin

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --locked --quiet -p fineline-registry -p fineline-client
bin=$CARGO_TARGET_DIR/debug
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-proxy.XXXXXX")
chmod 755 "$work"
server=
nginx=
cleanup() {
    [[ -z $nginx ]] || kill "$nginx" 2>/dev/null || true
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
for part in nginx login bytes trust; do
    # shellcheck source=/dev/null
    source "$root/tests/full/proxy/$part.sh"
done
finish
