#!/usr/bin/env bash
# Two replicas on one PostgreSQL and one store with three workers, behind nginx: pushes, pulls, deletions, evaluations and
# collections go through either; each replica is killed in the middle of everything and started again. At the end every
# step that was pushed reads back, every evaluation is done, and what nothing needs is gone.
#
#   tests/full/replicas.sh [SECONDS]     how long everything goes on at once, 60 when not given
#   tests/full/replicas.sh --install     installs what is missing first (Debian packages: PostgreSQL, nginx)
#
# Needs PostgreSQL, nginx and the folder `shared` beside the clone; says what is missing and ends well. The store is a
# bucket of Garage where there is one, else a folder that both replicas share.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
data=$(cd .. && pwd)/shared/data
duration=60
PATH=$PATH:/usr/sbin
# shellcheck source=tests/harness/postgres.sh
source tests/harness/postgres.sh
for argument in "$@"; do
    case $argument in
        --install) wanted=()
            postgres_program initdb >/dev/null || wanted+=(postgresql)
            command -v nginx >/dev/null || wanted+=(nginx-light)
            ((${#wanted[@]} == 0)) || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } ;;
        *) duration=$argument ;;
    esac
done
missing=()
[[ -d $data/run ]] || missing+=("../shared/data beside the clone")
postgres_program initdb >/dev/null || missing+=(postgresql)
command -v nginx >/dev/null || missing+=(nginx)
if ((${#missing[@]})); then
    echo "skipped: full/replicas: there is no ${missing[*]}"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fineline/target}"
cargo build --locked --quiet -p fineline-registry -p fineline-client -p fineline-evaluator
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-replicas.XXXXXX")
chmod 755 "$work"
bin=$CARGO_TARGET_DIR/debug
declare -A pid=()
cleanup() {
    touch "$work/enough"
    for name in "${!pid[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done
    [[ -z ${garage_pid:-} ]] || kill "$garage_pid" 2>/dev/null || true
    wait 2>/dev/null || true
    stop_postgres
    rm -rf "$work"
}
trap cleanup EXIT
# shellcheck source=tests/harness/accept.sh
source "$root/tests/harness/accept.sh"
# shellcheck source=tests/harness/garage.sh
source "$root/tests/harness/garage.sh"
# shellcheck source=tests/full/replicas/parts.sh
source "$root/tests/full/replicas/parts.sh"

start_all
echo "== two replicas, three workers, one PostgreSQL, store $store"
if [[ $store == file:* ]]; then echo "skipped: full/replicas on a bucket: $no_garage"; fi
python3 tests/accept/spine/suites.py "$data/lm_eval" "$work/suites"
suite=$work/suites/rolling.yaml
for run in lab/a lab/b; do fineline run create "$run" >/dev/null; done
fineline run create lab/scored >/dev/null
fineline suite apply "$suite" --run lab/scored >/dev/null

for run in a b; do push_for_ever $run & pid[push-$run]=$!; done
collect_for_ever & pid[collect]=$!
scored="16 128 512 1000 2000 3000"
push_scored & pid[scored]=$!
kills=0
begun=$SECONDS
while ((SECONDS - begun < duration)); do
    for name in one two; do
        # In the middle of something: not at a moment that the script knows.
        sleep $((duration / 8 + 1))
        kill -0 "${pid[$name]}" 2>/dev/null || echo "$name" >>"$work/died"
        kill -9 "${pid[$name]}" 2>/dev/null || true
        wait "${pid[$name]}" 2>/dev/null || true
        kills=$((kills + 1))
        sleep 2
        start_replica $name
    done
done
touch "$work/enough"
for name in push-a push-b collect scored; do wait "${pid[$name]}"; unset "pid[$name]"; done
report
