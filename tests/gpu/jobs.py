"""lm-eval's `hf` model on a device: `jobs.py JOBS` does what a JSON file lists, one after the other in one process.

A job is {model, dtype, device, batch, tasks: [YAML[:SHOTS]], out}. Each task's sample log goes to `out` in lm-eval's form, and a
line of JSON is printed: seconds inside of the model's requests, and tokens through the forward with padding; `error` where the
device lacked memory for the batch."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "bench/evaluation"))

import torch  # noqa: E402
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import handle_non_serializable, sanitize_list  # noqa: E402
from theirs import MODULES, Counted  # noqa: E402


def tell(**what):
    print(json.dumps(what), flush=True)


def save(name, samples, out):
    """A task's log as lm-eval's own writer has it."""
    with open(out / f"samples_{name}.jsonl", "w", encoding="utf-8") as log:
        for sample in samples:
            arguments = {
                f"gen_args_{i}": {f"arg_{j}": word for j, word in enumerate(words)} for i, words in enumerate(sample["arguments"])
            }
            lists = {field: sanitize_list(sample[field]) for field in ("resps", "filtered_resps")}
            kept = {**sample, **lists, "arguments": arguments, "target": str(sample["target"])}
            log.write(json.dumps(kept, default=handle_non_serializable, ensure_ascii=False) + "\n")


def do(lm, job, beside, tasks_known):
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    lm.batch_size_per_gpu = job["batch"]
    for task in job["tasks"]:
        path, _, shots = task.partition(":")
        # Where a task's data files are searched from.
        os.chdir(Path(path).parent)
        lm.seconds, lm.n_tokens = 0.0, 0
        try:
            found = simple_evaluate(
                model=lm, task_manager=tasks_known, tasks=[shutil.copy(path, beside)], num_fewshot=int(shots) if shots else None,
                log_samples=True, bootstrap_iters=0,
            )
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            tell(job=job["name"], batch=job["batch"], error=str(error)[:200])
            return
        (name, samples), = found["samples"].items()
        tell(job=job["name"], batch=job["batch"], task=name, seconds=lm.seconds, n_computed=lm.n_tokens)
        save(name, samples, out)


def main():
    jobs = json.loads(Path(sys.argv[1]).read_text())
    beside = Path(tempfile.mkdtemp())
    for name, module in MODULES.items():
        (beside / f"{name}.py").write_text(f"from lm_eval.tasks.{module} import *\n")
    lm, loaded = None, None
    # It reads all of lm-eval's tasks, which takes seconds.
    tasks_known = TaskManager()
    for job in jobs:
        wanted = (job["model"], job["dtype"], job["device"])
        if wanted != loaded:
            lm = None
            begun = time.perf_counter()
            lm, loaded = Counted(pretrained=job["model"], dtype=job["dtype"], device=job["device"], batch_size=job["batch"]), wanted
            tell(job=job["name"], load_s=time.perf_counter() - begun)
        do(lm, job, beside, tasks_known)
    shutil.rmtree(beside)


main()
