"""A step like another, with weights that no other has: alter.py STEP OUT N, N from 1 to 255."""

import pathlib
import shutil
import sys

step, out, n = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
shutil.rmtree(out, ignore_errors=True)
shutil.copytree(step, out)
for path in out.glob("*.safetensors"):
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    path.write_bytes(raw[:header] + raw[header:].translate(bytes(byte ^ n for byte in range(256))))
