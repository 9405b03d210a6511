"""FSDP on several ranks, each of which pushes its own shard: torchrun --nproc_per_node 2 multi_rank.py RUN TEXT OUT

Every rank writes the tensors that fall to it as one file of the checkpoint; the first one adds index, configuration and
tokenizer, and commits once the registry has the files of all.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import tiny
from fineline_push import Pusher


def save_part(model, tokenizer, folder: Path) -> int:
    """Writes this rank's part of a step; gives the number of files of all ranks together."""
    rank, world = dist.get_rank(), dist.get_world_size()
    folder.mkdir(parents=True, exist_ok=True)
    mine, where = {}, {}
    for at, (name, tensor) in enumerate(model.state_dict().items()):
        whole = tensor.full_tensor()  # all ranks take part; one keeps it
        owner = at % world
        where[name] = f"model-{owner + 1:05d}-of-{world:05d}.safetensors"
        if owner == rank:
            mine[name] = whole.contiguous()
    save_file(mine, folder / f"model-{rank + 1:05d}-of-{world:05d}.safetensors", {"format": "pt"})
    if rank == 0:
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    n_files = torch.tensor(len(list(folder.iterdir())))
    dist.all_reduce(n_files)
    return int(n_files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("text")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--save-every", type=int, default=5)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    tokenizer, rows = tiny.windows(args.text)
    model = tiny.model_of(tokenizer)
    mesh = init_device_mesh("cpu", (world,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    # A job that begins anew and writes other bytes needs another word; a spool a rank, and one word for all.
    job = f"{os.environ['TORCHELASTIC_RUN_ID']}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    pusher = Pusher(args.run, spool=args.out / f"spool-{rank}", rank=rank)
    for step in range(1, args.steps + 1):
        batch = rows[torch.arange(step * 8 * world + rank * 8, step * 8 * world + rank * 8 + 8) % len(rows)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % args.save_every == 0:
            folder = args.out / f"rank-{rank}" / f"step-{step}"
            n_files = save_part(model, tokenizer, folder)
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            pusher.push(
                step,
                folder,
                tokens=step * batch.numel() * world,
                loss=mean.item() / world,
                session=job,
                files=n_files,
            )
    missing = pusher.close()
    dist.destroy_process_group()
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
