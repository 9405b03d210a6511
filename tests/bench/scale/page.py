"""Writes docs/benchmarks/scale.md from the figures of each engine: page.py FIGURES..."""

import json
import os
import pathlib
import platform
import sys
import time

engines = [json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:]]
first = engines[0]
postgres = os.environ["POSTGRES_IS"]
cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def row(name, value):
    print(f"| {name} | " + " | ".join(value(engine) for engine in engines) + " |")


def spread(values):
    low, median, high = values
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


print(f"""# A registry with {first['n_chunks']:,} chunks

Made by `tests/bench/scale.sh` on {time.strftime('%Y-%m-%d')}: {cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB,
Linux {platform.release()}, a release build; PostgreSQL on the same machine, with fsync, {postgres}.
{first['n_checkpoints']:,} checkpoints in 100 namespaces, each with chunks of its own, a tenth of them in one run.
Of what has three figures these are the median of 15 calls, the least and the most. Bounds: 100 ms, 300 ms, 256 MiB more memory.
""")
print("| | " + " | ".join(engine["engine"] for engine in engines) + " |")
print("|---|" + "---|" * len(engines))
row("the database (GiB)", lambda e: f"{e['database_bytes'] / 2**30:.1f}")
row("`missing` for 10,000 digests, by a token of one namespace (ms)", lambda e: spread(e["missing_ms"]))
row("the first such call after the server's start (ms)", lambda e: f"{e['first_missing_ms']:.0f}")
row("publishing 2,000 chunks: session, chunk, files, commit, ready (ms)", lambda e: spread(e["publish_ms"]))
row("the same where a collection began since they were put (ms)", lambda e: spread(e["publish_later_ms"]))
row("writing transactions a second, one after another", lambda e: f"{e['transactions_per_s']:.0f}")
row("a collection that finds all needed (s)", lambda e: f"{e['mark_s']:.0f}")
row("peak memory before and after it (MiB)", lambda e: " → ".join(f"{b >> 20}" for b in e["mark_bytes"]))
print("""
Half of the 10,000 digests are held by the token's namespace, a quarter by others, a quarter by nobody, and the answer is
compared each time. What is published are 2,000 chunks whose rows say that they were put and not that they were published, in a
file that was verified before, with a small new file; reading content back costs what `transfer.md` says. The collection reads
every manifest and recipe, and every row of possession, in windows of 200,000. Seven tenths of the rows were loaded in the order
of their keys, which is quick; the others came one checkpoint after the other, as a registry gets them, and split the full pages.
Why it is laid out so stands in docs/adr/0012.
""")
for engine in engines:
    for what, plan in engine["plans"].items():
        print(f"How {engine['engine']} goes about {what}:\n")
        print("```text", *plan, "```", "", sep="\n")
