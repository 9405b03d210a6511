"""Measures a registry with many rows: run.py PROGRAM FOLDER CHECKPOINTS CHUNKS OUT DATABASE-URL-OR-EMPTY"""

import itertools
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

from registry import Registry
from rows import N_RUNS, Checkpoint, chunk_digest, load, namespace, numbers_of, sha256

N_DIGESTS = 10_000
N_TIMES = 15
MISSING_MS = 100
PUBLISH_MS = 300
MARK_BYTES = 256 << 20

# Of which the page shows how PostgreSQL goes about them, by how they begin.
STATEMENTS = {
    "`missing`, 500 of the digests": 'SELECT "possession"."digest"',
    "the mark, what a run holds": "SELECT digest, put_at_ms, released_at_ms FROM possession",
    "the mark, frames that nobody needs": "SELECT c.frame_id FROM chunk c",
}

program, folder, n_checkpoints, n_chunks, out, database = sys.argv[1:]
folder, n_checkpoints, n_chunks = pathlib.Path(folder), int(n_checkpoints), int(n_chunks)
published = numbers_of(7, n_checkpoints)[: 2 * N_TIMES]
if len(published) < 2 * N_TIMES:
    sys.exit(f"{n_checkpoints} checkpoints are too few: {2 * N_TIMES} of one run in {N_RUNS} are published")


def say(text):
    print(text, flush=True)


def spread(times):
    return [min(times), statistics.median(times), max(times)]


def prepare():
    """The schema and the runs by the server itself, all else by rows."""
    with Registry(program, folder, database) as registry:
        for run in range(N_RUNS):
            registry.post("/runs", {"run": f"{namespace(run)}/run"})
    begun = time.monotonic()
    checkpoints = [Checkpoint(number, n_chunks) for number in range(n_checkpoints)]
    load(database, folder / "fineline.db", checkpoints, set(published), list(range(1, N_RUNS + 1)))
    say(f"  {n_checkpoints * n_chunks} chunks in {n_checkpoints} checkpoints were loaded in {time.monotonic() - begun:.0f} s")


def asked(number):
    """A half that the run holds, a quarter that other runs hold, a quarter that nobody holds; in no order."""
    own, others = ([chunk_digest(c, at) for c in numbers_of(run, n_checkpoints) for at in range(n_chunks)] for run in [7, 8])
    choose = random.Random(number)
    n = min(N_DIGESTS // 2, len(own))
    own = choose.sample(own, n)
    rest = choose.sample(others, n // 2) + [sha256(f"unknown {number} {i}") for i in range(n // 2)]
    digests = [f"sha256:{digest.hex()}" for digest in own + rest]
    expected = set(digests[n:])
    choose.shuffle(digests)
    return digests, expected


def measure_missing(writer):
    """The first call after the server's start, and those behind it."""
    times = []
    for number in range(1 + N_TIMES):
        digests, expected = asked(number)
        took, answer = writer.timed("POST", f"/runs/{namespace(7)}/run/chunks/missing", {"digests": digests})
        assert set(answer["missing"]) == expected, "what is missing is not what it should be"
        times.append(took)
    return times[0], times[1:]


def measure_publish(writer, numbers):
    """Checkpoints of chunks that were put into the run and not published: session, files, commit, until it is ready. The large
    file was verified before and a small one is new."""
    run = f"/runs/{namespace(7)}/run"
    publish = lambda number: writer.publish(run, 1_000_000 + number, Checkpoint(number, n_chunks), number)
    return [publish(number) for number in numbers]


def measure_mark(registry):
    registry.forget_peak()
    before = registry.peak_bytes()
    took, report = registry.timed("POST", "/storage/gc", {"dry_run": False})
    assert report["condemned"]["n"] == 0 and report["deleted"]["n"] == 0, f"all is needed: {report}"
    return took, before, registry.peak_bytes()


def database_bytes():
    if not database:
        return (folder / "fineline.db").stat().st_size
    size = ["psql", "--quiet", "-At", database, "-c", "SELECT pg_database_size(current_database())"]
    return int(subprocess.run(size, check=True, stdout=subprocess.PIPE).stdout)


def plans_of_postgres():
    """How PostgreSQL goes about the large statements, as its server logs it for connections that are made from now on."""
    explain = {"session_preload_libraries": "'auto_explain'", "auto_explain.log_min_duration": 0, "auto_explain.log_analyze": "on"}
    name = database.split("?")[0].rsplit("/", 1)[1]
    for setting, value in explain.items():
        subprocess.run(["psql", "--quiet", database, "-c", f"ALTER DATABASE {name} SET {setting} = {value}"], check=True)
    with Registry(program, folder, database) as registry:
        writer = registry.as_token(registry.post("/tokens", {**with_scope, "name": "explained"})["secret"])
        writer.post(f"/runs/{namespace(7)}/run/chunks/missing", {"digests": asked(N_TIMES)[0]})
        registry.post("/storage/gc", {"dry_run": False})
    lines = pathlib.Path(os.environ["POSTGRES_LOG"]).read_text().splitlines()
    plans = {}
    for what, begins in STATEMENTS.items():
        found = [n for n, line in enumerate(lines) if line.startswith(f"\tQuery Text: {begins}")]
        if not found:
            say(f"  no statement that begins with {begins!r} was logged, so the page lacks its plan")
            continue
        plan = itertools.takewhile(lambda line: line.startswith("\t"), lines[found[0] + 1 :])
        # The digests themselves say nothing; newer servers name them a second time.
        told = [line for line in plan if not line.startswith("\tQuery Parameters:")]
        plans[what] = [re.sub(r"\{[^}]*\}|ARRAY\[[^]]*\]", "{…}", line[1:]) for line in told]
    return plans


prepare()
with_scope = {"name": "writer", "scopes": ["write"], "pattern": f"{namespace(7)}/*"}
with Registry(program, folder, database) as registry:
    writer = registry.as_token(registry.post("/tokens", with_scope)["secret"])
    first_missing, missing = measure_missing(writer)
    publish = measure_publish(writer, published[:N_TIMES])
    rate = writer.transactions_per_second(f"/runs/{namespace(7)}/run")
    mark_ms, before, peak = measure_mark(registry)
    publish_later = measure_publish(writer, published[N_TIMES:])

figures = {
    "engine": "PostgreSQL" if database else "SQLite",
    "n_chunks": n_checkpoints * n_chunks,
    "n_checkpoints": n_checkpoints,
    "database_bytes": database_bytes(),
    "first_missing_ms": first_missing,
    "missing_ms": spread(missing),
    "publish_ms": spread(publish),
    "publish_later_ms": spread(publish_later),
    "transactions_per_s": rate,
    "mark_s": mark_ms / 1000,
    "mark_bytes": [before, peak],
}
short = []
if figures["missing_ms"][1] >= MISSING_MS:
    short.append(f"missing took {figures['missing_ms'][1]:.0f} ms, the bound is {MISSING_MS}")
for when in ["publish_ms", "publish_later_ms"]:
    if figures[when][1] >= PUBLISH_MS:
        short.append(f"publishing took {figures[when][1]:.0f} ms, the bound is {PUBLISH_MS}")
if peak - before >= MARK_BYTES:
    short.append(f"the mark took {(peak - before) >> 20} MiB, the bound is {MARK_BYTES >> 20}")
say(f"  {json.dumps(figures)}")
for text in short:
    say(f"  SHORT {text}")
plans = plans_of_postgres() if database else {}
pathlib.Path(out).write_text(json.dumps({**figures, "plans": plans}))
sys.exit(bool(short))
