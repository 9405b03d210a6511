"""Writes a folder with 1 GiB of bf16 weights in two shards, no chunk of which repeats: pseudo-random bytes by seed."""

import json
import pathlib
import random
import struct
import sys

TENSOR_BYTES = 32 << 20
SHARD_TENSORS = 16

folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True)
generator = random.Random(seed)
weight_map = {}
for shard in (1, 2):
    name = f"model-0000{shard}-of-00002.safetensors"
    header = {"__metadata__": {"seed": str(seed)}}
    for tensor in range(SHARD_TENSORS):
        begin = tensor * TENSOR_BYTES
        tensor_name = f"model.layers.{shard}.{tensor}.weight"
        header[tensor_name] = {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [begin, begin + TENSOR_BYTES]}
        weight_map[tensor_name] = name
    text = json.dumps(header).encode()
    with open(folder / name, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(SHARD_TENSORS):
            file.write(generator.randbytes(TENSOR_BYTES))
total = 2 * SHARD_TENSORS * TENSOR_BYTES
index = {"metadata": {"total_size": total, "seed": seed}, "weight_map": weight_map}
(folder / "model.safetensors.index.json").write_text(json.dumps(index))
print(f"  generated {total} bytes of weights (seed {seed})")
