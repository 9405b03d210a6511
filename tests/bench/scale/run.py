"""Measures a registry with many rows: run.py PROGRAM FOLDER CHECKPOINTS CHUNKS OUT DATABASE-URL-OR-EMPTY"""

import json
import pathlib
import random
import statistics
import subprocess
import sys
import time

from registry import Registry
from rows import N_RUNS, Checkpoint, chunk_digest, load, namespace, sha256

N_DIGESTS = 10_000
N_TIMES = 15
MISSING_MS = 100
PUBLISH_MS = 300
MARK_BYTES = 256 << 20

program, folder, n_checkpoints, n_chunks, out, database = sys.argv[1:]
folder, n_checkpoints, n_chunks = pathlib.Path(folder), int(n_checkpoints), int(n_chunks)


def say(text):
    print(text, flush=True)


def prepare():
    """The schema and the runs by the server itself, all else by rows."""
    with Registry(program, folder, database) as registry:
        for run in range(N_RUNS):
            registry.post("/runs", {"run": f"{namespace(run)}/run"})
    begun = time.monotonic()
    checkpoints = [Checkpoint(number, n_chunks) for number in range(n_checkpoints)]
    load(database, folder / "fineline.db", checkpoints, list(range(1, N_RUNS + 1)))
    say(f"  {n_checkpoints * n_chunks} chunks in {n_checkpoints} checkpoints were loaded in {time.monotonic() - begun:.0f} s")


def asked(number):
    """A half that the run holds, a quarter that other runs hold, a quarter that nobody holds; in no order."""
    own = [chunk_digest(c, at) for c in range(7, n_checkpoints, N_RUNS) for at in range(n_chunks)]
    others = [chunk_digest(c, at) for c in range(8, n_checkpoints, N_RUNS) for at in range(n_chunks)]
    choose = random.Random(number)
    n = min(N_DIGESTS // 2, len(own))
    own = choose.sample(own, n)
    rest = choose.sample(others, n // 2) + [sha256(f"unknown {number} {i}") for i in range(n // 2)]
    digests = [f"sha256:{digest.hex()}" for digest in own + rest]
    expected = set(digests[n:])
    choose.shuffle(digests)
    return digests, expected


def measure_missing(writer):
    times = []
    for number in range(N_TIMES):
        digests, expected = asked(number)
        took, answer = writer.timed("POST", f"/runs/{namespace(7)}/run/chunks/missing", {"digests": digests})
        assert set(answer["missing"]) == expected, "what is missing is not what it should be"
        times.append(took)
    return times


def measure_publish(writer):
    """The same checkpoint of chunks that the run holds under new manifests: session, file, commit, until it is ready. The
    large file was verified before and a small one is new."""
    run = f"/runs/{namespace(7)}/run"
    times = []
    for number in range(N_TIMES):
        of = Checkpoint(7 + N_RUNS * (number % (n_checkpoints // N_RUNS)), n_chunks)
        times.append(writer.publish(run, 1_000_000 + number, of, number))
    return times


def measure_mark(registry):
    before = registry.peak_bytes()
    took, report = registry.timed("POST", "/storage/gc", {"dry_run": False})
    assert report["condemned"]["n"] == 0 and report["deleted"]["n"] == 0, f"all is needed: {report}"
    return took, before, registry.peak_bytes()


prepare()
with Registry(program, folder, database) as registry:
    with_scope = {"name": "writer", "scopes": ["write"], "pattern": f"{namespace(7)}/*"}
    writer = registry.as_token(registry.post("/tokens", with_scope)["secret"])
    missing = measure_missing(writer)
    publish = measure_publish(writer)
    rate = writer.transactions_per_second(f"/runs/{namespace(7)}/run")
    mark_ms, before, peak = measure_mark(registry)
figures = {
    "engine": "PostgreSQL" if database else "SQLite",
    "n_chunks": n_checkpoints * n_chunks,
    "n_checkpoints": n_checkpoints,
    "missing_ms": [min(missing), statistics.median(missing), max(missing)],
    "publish_ms": [min(publish), statistics.median(publish), max(publish)],
    "transactions_per_s": rate,
    "mark_s": mark_ms / 1000,
    "mark_bytes": [before, peak],
}
pathlib.Path(out).write_text(json.dumps(figures))
short = []
if figures["missing_ms"][1] >= MISSING_MS:
    short.append(f"missing took {figures['missing_ms'][1]:.0f} ms, the bound is {MISSING_MS}")
if figures["publish_ms"][1] >= PUBLISH_MS:
    short.append(f"publishing took {figures['publish_ms'][1]:.0f} ms, the bound is {PUBLISH_MS}")
if peak - before >= MARK_BYTES:
    short.append(f"the mark took {(peak - before) >> 20} MiB, the bound is {MARK_BYTES >> 20}")
say(f"  {json.dumps(figures)}")
for text in short:
    say(f"  SHORT {text}")
sys.exit(bool(short))
