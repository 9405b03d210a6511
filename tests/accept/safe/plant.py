"""Plants a corruption in a data folder whose server is stopped: DATA FILE KIND.

The victim is the largest chunk of FILE, as the database cuts it. Frames lie at store/frames/<last two digits>/<id>.
"""

import hashlib
import pathlib
import sqlite3
import sys


def main() -> None:
    data, file, kind = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    digest = hashlib.sha256(file.read_bytes()).digest()
    db = sqlite3.connect(data / "fineline.db")
    (recipe,) = db.execute("SELECT recipe FROM file WHERE digest = ?", [digest]).fetchone()
    chunks = [recipe[at : at + 40] for at in range(0, len(recipe), 40)]
    victim = max(chunks, key=lambda chunk: int.from_bytes(chunk[32:], "little"))[:32]
    (frame,) = db.execute("SELECT frame_id FROM chunk WHERE digest = ?", [victim]).fetchone()
    name = frame.hex()
    path = data / "store" / "frames" / name[-2:] / name
    if kind == "object_missing":
        path.unlink()
    elif kind == "frame_damaged":
        frame_bytes = bytearray(path.read_bytes())
        frame_bytes[len(frame_bytes) // 2] ^= 1
        path.write_bytes(frame_bytes)
    elif kind == "chunk_frame":
        (other,) = db.execute("SELECT frame_id FROM chunk WHERE digest <> ? LIMIT 1", [victim]).fetchone()
        db.execute("UPDATE chunk SET frame_id = ? WHERE digest = ?", [other, victim])
    elif kind == "recipe_size":
        db.execute("UPDATE file SET recipe = ? WHERE digest = ?", [b"".join(chunks[1:]), digest])
    elif kind == "condemned_needed":
        db.execute("UPDATE frame SET state = 'condemned', condemned_at_ms = 1 WHERE id = ?", [frame])
    else:
        sys.exit(f"unknown corruption `{kind}`")
    db.commit()


main()
