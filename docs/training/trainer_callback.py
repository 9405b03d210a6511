"""A callback for transformers' Trainer that pushes each step that it saves: trainer_callback.py RUN TEXT OUT"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.trainer_utils import get_last_checkpoint

import tiny
from fineline_push import Pusher


class FinelineCallback(TrainerCallback):
    """Pushes what the Trainer saves, on the first process."""

    def __init__(self, pusher: Pusher, close_timeout_s: float = 600.0) -> None:
        self.pusher, self.close_timeout_s, self.missing = pusher, close_timeout_s, []

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            self.pusher.push(
                state.global_step,
                Path(args.output_dir) / f"checkpoint-{state.global_step}",
                tokens=state.num_input_tokens_seen or None,
                loss=losses[-1] if losses else None,
            )

    def on_train_end(self, args, state, control, **kwargs):
        self.missing = self.pusher.close(self.close_timeout_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("text")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--close-timeout", type=float, default=600.0)
    parser.add_argument("--no-push", action="store_true", help="train alone, to compare the times")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    tokenizer, rows = tiny.windows(args.text)
    trainer = Trainer(
        model=tiny.model_of(tokenizer),
        args=TrainingArguments(
            output_dir=str(args.out),
            max_steps=args.steps,
            save_steps=args.save_every,
            logging_steps=1,
            save_total_limit=1,
            include_num_input_tokens_seen="all",
            learning_rate=3e-3,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )
    callback = None
    if not args.no_push:
        restart_files = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "training_args.bin")
        pusher = Pusher(args.run, spool=args.out / "spool", exclude=restart_files)
        callback = FinelineCallback(pusher, args.close_timeout)
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.out) if args.out.exists() else None)
    print(f"train_s={trainer.state.log_history[-1]['train_runtime']:.2f}")
    return 1 if callback and callback.missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
