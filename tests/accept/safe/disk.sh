# A store on a file system that is filled to the end: 507 with the numbers, reading and deleting go on, freed space is
# usable again.
# shellcheck shell=bash

echo "== a full disk"
mkdir "$work/small"
if ! mount -t tmpfs -o size=64m tmpfs "$work/small" 2>/dev/null; then
    echo "skipped: accept/safe/disk: a small file system can't be mounted here"
    return 0
fi
mounted=$work/small
dir=$work/small/data
start_server "$dir" --evaluator off --grace 3s
fineline run create lab/run >/dev/null
ready=()
for path in "$data"/run/step-*; do
    step=$((10#${path##*step-}))
    fineline push lab/run $step "$path" >"$work/out" 2>"$work/err" || break
    ready+=("$step")
done
check "it is full after ${#ready[@]} steps, $(df --output=avail -k "$work/small" | tail -1 | tr -d ' ') KiB left" test "${#ready[@]}" -lt 21
check "what does not fit is refused with the numbers" grep -qE "[0-9]+ of [0-9]+ bytes are free" "$work/err"
echo "    $(grep -m1 full "$work/err")"
whole=0
for at in "${ready[@]}"; do identical "lab/run@$at" "$(step_dir "$at")" && whole=$((whole + 1)); done
check "all ${#ready[@]} steps are read while it is full ($whole identical)" test $whole = "${#ready[@]}"
check "the step that did not fit is not there" refused "there is no checkpoint" fineline show "lab/run@$step"
for at in "${ready[@]:0:4}"; do fineline delete "lab/run@$at" >/dev/null; done
check "deleting goes on" refused "there is no checkpoint" fineline show "lab/run@${ready[0]}"
fits() { fineline storage gc >/dev/null; fineline push lab/run "$step" "$(step_dir "$step")" >/dev/null 2>&1; }
check "the space comes back: the step that did not fit fits" eventually 60 fits
check "it is identical" identical "lab/run@$step" "$(step_dir "$step")"
whole=0
for at in "${ready[@]:4}"; do identical "lab/run@$at" "$(step_dir "$at")" && whole=$((whole + 1)); done
check "nothing was lost ($whole steps identical)" test $whole = $((${#ready[@]} - 4))
stop_server
check "scrub finds nothing" sound "$dir"
umount "$mounted"
mounted=
