#!/usr/bin/env bash
# CUDA's compiler from NVIDIA's wheels of the Python package index, for machines without CUDA: 270 MB in a folder, in seconds.
#
#   evaluator/cuda/toolkit.sh DIR    makes DIR/cuda, a CUDA_HOME for x86-64; what is whole there already stays
#
# Beside the compiler stand archives named like the driver's and the libraries' that open the real ones at their first call
# (shims.py), so that a program which was linked with them starts on a machine that has none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?a folder is wanted}
[[ $(uname -m) == x86_64 ]] || { echo "the stand-ins are written for x86-64: install CUDA here (docs/OPERATIONS.md)" >&2; exit 1; }

# 13.0 throughout: a driver refuses the code of a newer compiler than it knows, and 580 is the first that knows this one.
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
made="${wheels[*]} $(cat "$here/shims.py" "$0" | sha256sum)"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
[[ $(cat "$dir/made" 2>/dev/null) == "$made" ]] && exit 0

rm -rf "$dir/venv" "$dir/cuda" "$dir/made"
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps "${wheels[@]}"
home=$(echo "$dir"/venv/lib/python3*/site-packages/nvidia/cu13)
# nvcc looks for its own libraries where an installed one has them.
ln -sfn lib "$home/lib64"
mkdir -p "$home/lib/stubs"
manifest=$(cd "$here/../.." && pwd)/Cargo.toml
cargo metadata --locked --format-version 1 --manifest-path "$manifest" --features fineline-evaluator/cuda |
    "$dir/venv/bin/python" "$here/shims.py" "$home/lib/stubs"
ln -sfn ../libcudart_static.a "$home/lib/stubs/libcudart.a"
ln -sfn "$home" "$dir/cuda"
echo "$made" >"$dir/made"
