#!/usr/bin/env bash
# Builds a worker for NVIDIA's cards, on a machine that needs neither a card nor CUDA (x86-64, Python 3 with venv, a C++ compiler).
#
#   evaluator/cuda/build.sh OUT [CARGO-ARGUMENT...]    puts fineline-evaluator into OUT, and what `--example NAME` asks for
#
# The program runs with and without CUDA, on cards from Ampere on (compute capability 8.0): its kernels are PTX, which the driver
# compiles for the card. CUDA_TOOLKIT=DIR is where the compiler is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?a folder for the program is wanted}
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fineline
toolkit=${CUDA_TOOLKIT:-$cache/cuda}
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$here/toolkit.sh" "$toolkit"

export CUDA_HOME=$toolkit/cuda CUDA_COMPUTE_CAP=80 NVCC=$here/nvcc PATH=$toolkit/cuda/bin:$PATH
# A folder of its own beside the other builds: features are part of what is built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}/cuda
cd "$here/../.."
cargo build --release --locked -p fineline-evaluator --features cuda --bin fineline-evaluator "$@"
install -t "$out" "$CARGO_TARGET_DIR/release/fineline-evaluator"
while (($#)); do
    if [[ $1 == --example ]]; then install -t "$out" "$CARGO_TARGET_DIR/release/examples/$2"; fi
    shift
done
