#!/usr/bin/env bash
# The worker for NVIDIA's cards, built on a machine that has neither a card nor CUDA: it starts there, and says what is missing of
# each thing that a card needs. The faults of a driver are a stand-in's, which also proves the program's jumps into libraries.
#
#   tests/full/cuda.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
for program in python3 c++; do
    command -v "$program" >/dev/null || { echo "skipped: full/cuda: there is no $program"; exit 0; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/fineline-cuda.XXXXXX")
trap 'rm -rf "$work"' EXIT
evaluator/cuda/build.sh "$work"
worker=$work/fineline-evaluator
failed=0

needed=$(ldd "$worker" | awk '{print $1}' | grep -vE 'linux-vdso|ld-linux|^lib(c|m|gcc_s)\.so' || true)
if [[ -n $needed ]]; then echo "the program needs $needed to start" >&2; failed=1; fi
echo "program: $(stat -c %s "$worker") bytes, $(gzip -c "$worker" | wc -c) compressed"

mkdir "$work/driver" "$work/libraries"
cc -shared -fPIC -o "$work/driver/libcuda.so.1" tests/full/cuda/driver.c
for library in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do
    echo | cc -shared -fPIC -x c -o "$work/libraries/$library" -
done
both=$work/driver:$work/libraries

says() { # WORDS LIBRARIES DEVICE [VARIABLE=VALUE...]
    local words=$1 libraries=$2 device=$3 said status=0
    shift 3
    said=$(env "$@" LD_LIBRARY_PATH="$libraries" timeout 60 "$worker" --server http://127.0.0.1:9 --token t --device "$device" --once 2>&1) || status=$?
    if ((status == 0 || status == 124)) || ! grep -qF -- "$words" <<<"$said"; then
        printf 'device %s: no `%s` (exit %s) in:\n%s\n' "$device" "$words" "$status" "$said" >&2
        failed=1
    else
        echo "device $device: $words"
    fi
}
says "there is no NVIDIA driver" "" cuda:0
says "there is no NVIDIA driver" "" cuda:auto
says "CUDA 13's cuBLAS and cuRAND are missing" "$work/driver" cuda:0
says "the driver knows CUDA 12.4 and this program is of CUDA 13.0" "$both" cuda:0 DRIVER_VERSION=12040
says "the driver does not start" "$both" cuda:0 DRIVER_INIT=100
says "CUDA_ERROR_NO_DEVICE" "$both" cuda:0 DRIVER_INIT=100
says "the driver sees no card" "$both" cuda:auto DRIVER_CARDS=0
says 'device `cuda:99` is not there: this process sees 2' "$both" cuda:99 DRIVER_CARDS=2
says "compute capability 7.5 and 8.0 is the least" "$both" cuda:0 DRIVER_CAPABILITY=75
# The stand-in has no context: what goes on from here is a card's. A function that a library lacks is named.
says "libcuda.so.1 has no function" "$both" cuda:0
exit "$failed"
