"""A FAKE trainer: it computes for a while, writes folders as a trainer writes them, and learns nothing.

It needs nothing but the standard library, so that the quick ring shows what `docs/training/fineline_push.py` does to a
loop without torch. tests/full/training.sh runs the real ones. fake_trainer.py RUN OUT [OPTION...]

Like a real one it goes on behind the last step that it saved, and with `--rotate` it keeps only the newest folder.
Prints one JSON document: seconds of the loop, the longest call of `push`, and what was told.
"""

import argparse
import hashlib
import json
import logging
import random
import shutil
import struct
import sys
import time
from pathlib import Path

root = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(root / "docs/training"))
from fineline_push import Pusher  # noqa: E402

TENSORS = {"model.embed_tokens.weight": [64, 32], "model.norm.weight": [32], "lm_head.weight": [64, 32]}


def compute() -> None:
    """What a step costs: a fixed number of rounds, not a fixed time."""
    digest = b""
    for _ in range(120_000):
        digest = hashlib.sha256(digest).digest()


def save(step: int, folder: Path, seed: int) -> None:
    chance, header, values = random.Random(1000 * seed + step), {}, b""
    for name, shape in TENSORS.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        raw = struct.pack(f"<{n}f", *(chance.gauss(0, 1) for _ in range(n)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(values), len(values) + len(raw)]}
        values += raw
    text = json.dumps(header).encode()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + values)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "optimizer.pt").write_bytes(b"only a restart needs this")


def ran_or_blocked() -> float:
    """Seconds by the clock, less those in which this thread was ready and the machine ran others."""
    try:
        queued_ns = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except OSError:
        queued_ns = 0
    return time.monotonic() - queued_ns / 1e9


parser = argparse.ArgumentParser()
parser.add_argument("run")
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--replace", action="store_true")
parser.add_argument("--rotate", action="store_true")
parser.add_argument("--no-push", action="store_true")
parser.add_argument("--limit", type=float, default=60.0)
parser.add_argument("--close-timeout", type=float, default=60.0)
parser.add_argument("--session")
parser.add_argument("--rank", type=int, default=0)
parser.add_argument("--files", type=int)
parser.add_argument("--program", default="fineline")
args = parser.parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")

told, calls = [], []
pusher = None
if not args.no_push:
    pusher = Pusher(
        args.run,
        spool=args.out / "spool",
        exclude=["optimizer.pt"],
        limit_s=args.limit,
        replace=args.replace,
        tell=lambda failure: told.append(str(failure)),
        rank=args.rank,
        program=args.program,
    )
last = args.out / "last-step"
first = int(last.read_text()) + 1 if last.exists() else 1
begun = time.monotonic()
for step in range(first, args.steps + 1):
    compute()
    folder = args.out / f"checkpoint-{step}"
    save(step, folder, args.seed)
    if pusher is not None:
        called = ran_or_blocked()
        pusher.push(step, folder, tokens=step * 1000, loss=5.0 / step, session=args.session, files=args.files)
        calls.append(ran_or_blocked() - called)
    last.write_text(str(step))
    if args.rotate:
        shutil.rmtree(args.out / f"checkpoint-{step - 1}", ignore_errors=True)
loop_s = time.monotonic() - begun
missing = pusher.close(args.close_timeout) if pusher is not None else []
print(
    json.dumps(
        {
            "n_steps": max(args.steps + 1 - first, 0),
            "loop_s": round(loop_s, 3),
            "longest_call_ms": round(1000 * max(calls, default=0.0), 2),
            "missing": [failure.step for failure in missing],
            "told": told,
        }
    )
)
raise SystemExit(1 if missing else 0)
