"""A plain PyTorch loop that pushes the steps that it saves: plain_loop.py RUN TEXT OUT [--steps N]

The same command goes on after any end: behind the last saved step, and with the pushes that are missing.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
from pathlib import Path

import torch

import tiny
from fineline_push import Pusher


def save(model, tokenizer, folder: Path) -> None:
    """Writes a step under its name whole or not at all."""
    making = folder.with_name(folder.name + ".tmp")
    model.save_pretrained(making)
    tokenizer.save_pretrained(making)
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("text")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--close-timeout", type=float, default=600.0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    tokenizer, rows = tiny.windows(args.text)
    model = tiny.model_of(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first, restart = 1, args.out / "restart.pt"
    if restart.exists():
        state = torch.load(restart)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"] + 1

    pusher = Pusher(args.run, spool=args.out / "spool")
    preempted = []
    signal.signal(signal.SIGTERM, lambda *_: preempted.append(True))
    for step in range(first, args.steps + 1):
        batch = rows[torch.arange(step * 8, step * 8 + 8) % len(rows)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        last = step == args.steps or bool(preempted)
        if step % args.save_every == 0 or last:
            folder = args.out / f"step-{step}"
            save(model, tokenizer, folder)
            # The push first: who is killed between the two trains this step again and pushes it again, and the registry
            # says that it has it.
            pusher.push(step, folder, tokens=step * batch.numel(), loss=loss.item())
            state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, restart.with_suffix(".tmp"))
            os.replace(restart.with_suffix(".tmp"), restart)
        if last:
            break
    missing = pusher.close(timeout_s=20 if preempted else args.close_timeout)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
