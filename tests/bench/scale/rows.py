"""Rows of a registry with many checkpoints, for SQLite by its own module and for PostgreSQL by psql's COPY.

Every checkpoint is a step of one file with chunks of its own, as consecutive steps of a training run have no chunk in
common; run i belongs to namespace i. A tenth of all checkpoints are of the first run, so that a mark takes several windows for
it. Digests are SHA-256, so they come in no order.
"""

import hashlib
import itertools
import json
import sqlite3
import struct
import subprocess
import time

CHUNK_BYTES = 1 << 20
N_RUNS = 100


def sha256(text):
    return hashlib.sha256(text.encode()).digest()


def chunk_digest(checkpoint, at):
    return sha256(f"chunk {checkpoint} {at}")


def namespace(run):
    return f"lab{run:02}"


def run_of(number):
    return 0 if number // N_RUNS % 10 == 9 else number % N_RUNS


def numbers_of(run, n_checkpoints):
    return [number for number in range(n_checkpoints) if run_of(number) == run]


class Checkpoint:
    def __init__(self, number, n_chunks):
        self.number = number
        self.run = run_of(number)
        self.step = number
        self.chunks = [chunk_digest(number, at) for at in range(n_chunks)]
        self.size = n_chunks * CHUNK_BYTES
        self.file = sha256(f"file {number}")
        entry = {"path": "model.bin", "sha256": self.file.hex(), "size": self.size}
        self.manifest = json.dumps({"files": [entry]}, separators=(",", ":")).encode()
        self.digest = hashlib.sha256(self.manifest).digest()

    def recipe(self):
        return b"".join(digest + struct.pack("<Q", CHUNK_BYTES) for digest in self.chunks)


COLUMNS = {
    "frame": "id chunk_digest state stored_bytes created_at_ms",
    "chunk": "digest size_bytes frame_id",
    "possession": "digest run_id put_at_ms published_at_ms",
    "file": "digest size_bytes recipe verified_at_ms",
    "checkpoint": "digest manifest n_files size_bytes",
    "revision": 'run_id step state "current" checkpoint_digest metadata tags warnings "replace" created_at_ms ready_at_ms',
}


def tables(checkpoints, only_put, run_ids, now):
    """Each table with its rows: the first seven tenths of large ones in the order of their keys, so that loading is quick, the
    others one checkpoint after the other, as a registry gets them. The chunks of checkpoints whose number is in `only_put` are
    there as those of a push that was not committed yet."""
    n_sorted = len(checkpoints) * 7 // 10
    chunks = sorted((digest, c.number) for c in checkpoints[:n_sorted] for digest in c.chunks)
    chunks += [(digest, c.number) for c in checkpoints[n_sorted:] for digest in c.chunks]
    frame_id = lambda digest: digest[16:]
    yield "frame", ((frame_id(d), d, "live", CHUNK_BYTES * 2 // 3, now) for d, _ in chunks)
    yield "chunk", ((d, CHUNK_BYTES, frame_id(d)) for d, _ in chunks)
    run_id = lambda number: run_ids[run_of(number)]
    held = ((d, run_id(number), now, None if number in only_put else now) for d, number in chunks)
    named = ((d, run_id(c.number), now, now) for c in checkpoints for d in (c.file, c.digest))
    yield "possession", itertools.chain(held, named)
    del chunks, held
    yield "file", ((c.file, c.size, c.recipe(), now) for c in checkpoints)
    yield "checkpoint", ((c.digest, c.manifest, 1, c.size) for c in checkpoints)
    yield "revision", (
        (run_ids[c.run], c.step, "ready", True, c.digest, "{}", "[]", "[]", False, now, now) for c in checkpoints
    )


def load(database, path, checkpoints, only_put, run_ids):
    now = int(time.time() * 1000)
    for table, rows in tables(checkpoints, only_put, run_ids, now):
        columns = COLUMNS[table].split()
        if database:
            copy(database, table, columns, rows)
        else:
            insert(path, table, columns, rows)
    if database:
        subprocess.run(["psql", "--quiet", database, "-c", "VACUUM ANALYZE"], check=True)


def insert(path, table, columns, rows):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = -2000000")
    places = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
    connection.commit()
    connection.close()


def copy(database, table, columns, rows):
    command = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    psql = subprocess.Popen(["psql", "--quiet", database, "-c", command], stdin=subprocess.PIPE, text=True)
    for row in rows:
        psql.stdin.write("\t".join(literal(table, column, value) for column, value in zip(columns, row)) + "\n")
    psql.stdin.close()
    if psql.wait():
        raise SystemExit(f"rows of `{table}` can't be copied")


def literal(table, column, value):
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        is_uuid = (table, column) in [("frame", "id"), ("chunk", "frame_id")]
        return value.hex() if is_uuid else "\\\\x" + value.hex()
    return str(value)
