# No flag and no variable that the programs don't know: what is renamed there is renamed here.
# shellcheck shell=bash

echo "== flags and variables"
{
    "$bin/fineline-registry" --help
    for command in serve health "token create"; do
        # shellcheck disable=SC2086
        "$bin/fineline-registry" $command --help
    done
    "$bin/fineline-evaluator" --help
    # Read where the log is set up, by the build, and by the client in the examples.
    echo FINELINE_LOG FINELINE_REVISION FINELINE_URL FINELINE_TOKEN
} >"$work/help"

# Compose's own variables for the images are not ours.
variables=$(grep --directories=skip -ohE '\bFINELINE_[A-Z_]+' "$deploy"/* | grep -vxE 'FINELINE_(CUDA_)?IMAGE' | sort -u)
for variable in $variables; do
    check "$variable is known" grep -qw "$variable" "$work/help"
done
commands=$(grep --directories=skip -ohE 'fineline-(registry|evaluator)[ "a-z,_/.=-]*--[^#`]*' "$deploy"/* | grep -oE '(^|[ "])--[a-z-]+' | tr -d ' "' | sort -u)
# Those that stand by themselves in the words; Compose's own is not ours.
commands="$commands $(grep -ohE '`--[a-z-]+' "$deploy/README.md" | tr -d '`' | grep -vxE -- '--(scale|profile)' | sort -u)"
for flag in $commands; do
    check "$flag is known" grep -qE -- "(^|[ ,])$flag\b" "$work/help"
done
check "there was something to check" test "$(wc -w <<<"$variables $commands")" -ge 12
