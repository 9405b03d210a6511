"""A safetensors file of many tensors and about so many bytes, with what makes it a model: large.py FOLDER BYTES

Its values are noise, so nothing of it is small or like anything else once it is stored."""

import json
import os
import sys
from pathlib import Path

folder, size = Path(sys.argv[1]), int(sys.argv[2])
row = 48 << 20
rows, at = {}, 0
while at < size:
    rows[f"layer.{len(rows)}"] = {"dtype": "BF16", "shape": [row // 2], "data_offsets": [at, at + row]}
    at += row
header = json.dumps(rows).encode()
header += b" " * (-len(header) % 8)
with open(folder / "model.safetensors", "wb") as file:
    file.write(len(header).to_bytes(8, "little") + header)
    for _ in rows:
        file.write(os.urandom(row))
(folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
(folder / "tokenizer.json").write_text("{}")
