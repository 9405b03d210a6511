# What the scripts of training share. Sourced, never run.
# shellcheck shell=bash

# steps RUN: the steps that are ready.
steps() {
    fineline ls "$1" --json | python3 -c 'import json, sys
print(*[c["step"] for c in json.load(sys.stdin) if c["state"] == "ready"])'
}

# pushed LOG: how many pushes the module said that it did.
pushed() { grep -cE 'step [0-9]+ is pushed' "$1" || true; }

# empty DIR
empty() { [[ -d $1 && -z $(ls -A "$1") ]]; }

# digest_is RUN@REF FILE...: the registry's weights digest is the one that these files have by its definition.
digest_is() {
    local there
    there=$(fineline show "$1" --json | field weights_digest)
    shift
    [[ $there == "$(python3 tests/accept/training/weights_digest.py "$@")" ]]
}

# called_fast TOLD: no call of `push` held the loop for 50 ms.
called_fast() { python3 -c 'import json, sys; sys.exit(json.load(open(sys.argv[1]))["longest_call_ms"] >= 50)' "$1"; }

# no_longer ALONE TOLD: the loop took as long with pushes as without, as far as a busy machine can tell.
no_longer() {
    python3 -c 'import json, sys
alone, told = (json.load(open(path))["loop_s"] for path in sys.argv[1:])
sys.exit(told > 1.5 * alone + 1)' "$1" "$2"
}

unit_tests() {
    python3 -W error tests/accept/training/pusher_test.py 2>"$work/unit" || { cat "$work/unit"; return 1; }
    echo "    $(grep -E '^Ran' "$work/unit")"
}

# calls_fast LOG: as the module itself says at its end.
calls_fast() {
    python3 -c 'import re, sys
found = [float(ms) for ms in re.findall(r"no call took more than ([0-9.]+) ms", open(sys.argv[1]).read())]
sys.exit(not found or max(found) >= 50)' "$1"
}
