"""lm-eval's `hf` model on the same tasks: `theirs.py MODEL LIMIT BATCH_SIZE LOGS YAML[:SHOTS]...` prints a line of JSON for
each task. Counted are the seconds inside the model's requests, tokenizing included, and the tokens that go through the
forward, padding included; loading, reading data and working out scores are not."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

torch.set_num_threads(os.cpu_count())
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402


# lm-eval's own modules, under the names by which the tasks have them beside them.
MODULES = {
    "utils_copa": "super_glue.copa.utils",
    "utils_hellaswag": "hellaswag.utils",
    "preprocess_winogrande": "winogrande.preprocess_winogrande",
}


class Counted(HFLM):
    seconds = 0.0
    n_tokens = 0

    def _model_call(self, inps, *args, **kwargs):
        self.n_tokens += inps.numel()
        return super()._model_call(inps, *args, **kwargs)

    def _model_generate(self, context, *args, **kwargs):
        out = super()._model_generate(context, *args, **kwargs)
        self.n_tokens += out.numel()
        return out

    def timed(self, ask, requests, kwargs):
        begun = time.perf_counter()
        answers = ask(requests, disable_tqdm=True)
        self.seconds += time.perf_counter() - begun
        return answers

    def loglikelihood(self, requests, **kwargs):
        return self.timed(super().loglikelihood, requests, kwargs)

    def loglikelihood_rolling(self, requests, **kwargs):
        return self.timed(super().loglikelihood_rolling, requests, kwargs)

    def generate_until(self, requests, **kwargs):
        return self.timed(super().generate_until, requests, kwargs)


def main():
    model, limit, batch_size, logs, *tasks = sys.argv[1:]
    beside = Path(tempfile.mkdtemp())
    for name, module in MODULES.items():
        (beside / f"{name}.py").write_text(f"from lm_eval.tasks.{module} import *\n")
    lm = Counted(pretrained=model, dtype="float32", device="cpu", batch_size=int(batch_size))
    for task in tasks:
        path, _, shots = task.partition(":")
        # Where a task's data files are searched from.
        os.chdir(Path(path).parent)
        lm.seconds, lm.n_tokens = 0.0, 0
        found = simple_evaluate(
            model=lm,
            tasks=[shutil.copy(path, beside)],
            num_fewshot=int(shots) if shots else None,
            limit=int(limit),
            log_samples=True,
            bootstrap_iters=0,
        )
        (name, samples), = found["samples"].items()
        with open(Path(logs) / f"{name}.jsonl", "w", encoding="utf-8") as log:
            for sample in samples:
                log.write(json.dumps({"doc_id": sample["doc_id"], "resps": sample["resps"]}, default=str) + "\n")
        print(json.dumps({"task": name, "seconds": lm.seconds, "n_computed": lm.n_tokens}), flush=True)
    shutil.rmtree(beside)


if __name__ == "__main__":
    main()
