"""Whether a step has the files of a folder, by SHA-256: same_files.py FOLDER [LEFT_OUT...] < the JSON of `fineline ls RUN@STEP`"""

import hashlib
import json
import sys
from pathlib import Path

folder, left_out = Path(sys.argv[1]), set(sys.argv[2:])
files = json.load(sys.stdin)
there = {file["path"]: file["digest"] for file in (files["files"] if isinstance(files, dict) else files)}
wanted = {
    str(path.relative_to(folder)): "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob("*")
    if path.is_file() and str(path.relative_to(folder)) not in left_out
}
if there != wanted:
    for path in sorted(there.keys() | wanted.keys()):
        if there.get(path) != wanted.get(path):
            print(f"    {path}: is {there.get(path)}, should be {wanted.get(path)}")
    raise SystemExit(1)
