"""Holds the evaluator's samples against lm-eval's with `fineline eval compare`: `compare.py PROGRAMS SMOLLM2 DATA WORK LIMIT`. Exits
with 1 on any breach. See tests/full/parity.sh."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Models with logs of lm-eval's in DATA, by the folder of the logs.
MODELS = {"stories260K": "models/stories260K", "run-step-000512": "run/step-000512", "run-step-003000": "run/step-003000"}
SHOTS = {"mmlu_anatomy": 5}
# lm-eval's own modules, under the names by which the tasks have them beside them.
MODULES = {
    "utils_copa": "super_glue.copa.utils",
    "utils_hellaswag": "hellaswag.utils",
    "preprocess_winogrande": "winogrande.preprocess_winogrande",
}
# gsm8k's texts are long and its answers seldom right: fewer and shorter ones. Lambada's last words are seldom greedy: more.
N_GENERATED = 3
N_LAMBADA = 60
MAX_GEN_TOKS = {"reference": 64, "smollm2": 32, "bfloat16": 32}
# On which decisions in bfloat16 are counted, and on how many documents each.
BFLOAT16 = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "openbookqa", "copa", "boolq"]
N_BFLOAT16 = 80


class Parity:
    def __init__(self, programs, smollm2, data, work, limit):
        self.measure, self.fineline = programs / "examples/measure", programs / "fineline"
        self.smollm2, self.data, self.work, self.limit = smollm2, data, work, limit
        self.short = []

    def tasks(self, which):
        """Task files by name, their data named in full and their texts made shorter."""
        folder = self.work / f"tasks-{which}"
        folder.mkdir()
        for name, module in MODULES.items():
            (folder / f"{name}.py").write_text(f"from lm_eval.tasks.{module} import *\n")
        found = {}
        for path in sorted((self.data / "lm_eval/tasks").glob("*.yaml")):
            text = path.read_text(encoding="utf-8").replace("../../", f"{self.data}/")
            text = text.replace("  temperature: 0.0\n", f"  temperature: 0.0\n  max_gen_toks: {MAX_GEN_TOKS[which]}\n")
            (folder / path.name).write_text(text, encoding="utf-8")
            found[path.stem] = folder / path.name
        return found

    def ours(self, model, dtype, wanted, out):
        """Evaluates tasks (path, limit, shots)."""
        out.mkdir(parents=True)
        for path, limit, shots in wanted:
            task = f"{path}:{shots}" if shots else str(path)
            # Data that are named in full stay so below any folder.
            command = [self.measure, "tasks", model, "--dtype", dtype, "--limit", str(limit), "--logs", out, task]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for log in out.glob("*.jsonl"):
            log.rename(out / f"samples_{log.name}")
        return out

    def theirs(self, model, dtype, wanted, out):
        """Runs lm-eval on the same."""
        calls = {}
        for path, limit, shots in wanted:
            calls.setdefault((limit, shots), []).append(path)
        out.mkdir(parents=True)
        for (limit, shots), paths in calls.items():
            command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype={dtype}"]
            command += ["--device", "cpu", "--batch_size", "8", "--limit", str(limit), "--log_samples", "--output_path", str(out / "raw")]
            command += ["--tasks", ",".join(map(str, paths))] + (["--num_fewshot", str(shots)] if shots else [])
            ran = subprocess.run(command, capture_output=True, text=True, cwd=paths[0].parent)
            if ran.returncode:
                sys.exit(f"{' '.join(map(str, command))}\n{ran.stderr[-3000:]}")
            for log in (out / "raw").glob("*/samples_*.jsonl"):
                shutil.move(log, out / f"{log.name.rsplit('_', 1)[0]}.jsonl")
        shutil.rmtree(out / "raw")
        return out

    def compared(self, a, b):
        """What `fineline eval compare` says of two sets."""
        command = [self.fineline, "--json", "eval", "compare", a, b, "--only-common"]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode not in (0, 1):
            sys.exit(ran.stderr)
        return json.loads(ran.stdout)

    def judge(self, what, reference, ours, n_tasks):
        """Prints a line a task and filter, and keeps what is broken."""
        said = self.compared(reference, ours)
        print(f"== {what}: samples, unequal decisions, those that lm-eval's own numbers leave open; log-likelihoods: largest and mean"
              " signed difference, 95 % interval")
        for task in said["tasks"]:
            decisions = [metric for metric in task["metrics"] if metric["decides"]]
            unequal, excused = (sum(metric[count] for metric in decisions) for count in ("n_unequal", "n_excused"))
            numbers = task["differences"]
            told = "texts equal" if numbers is None else (
                f"{numbers['largest']:.1e}  {numbers['mean']:+.1e} [{numbers['interval_95'][0]:+.1e}, {numbers['interval_95'][1]:+.1e}]"
                if numbers["interval_95"] else f"{numbers['largest']:.1e}  {numbers['mean']:+.1e}"
            )
            if numbers is None and task["n_different_texts"]:
                told = f"{task['n_different_texts']} texts differ"
            print(f"  {task['task'] + ' ' + task['filter']:60} {task['n_compared']:4} {unequal:3} {excused:3}  {told}")
        found = {task["task"] for task in said["tasks"] if task["n_compared"]}
        if len(found) != n_tasks:
            self.short.append(f"{what}: {len(found)} of {n_tasks} tasks were compared")
        lone = sum(task["n_only_a"] + task["n_only_b"] for task in said["tasks"])
        if lone:
            self.short.append(f"{what}: {lone} samples are on one side alone")
        self.short += [f"{what}: {breach}" for breach in said["breaches"]]

    def references(self):
        tasks = {task_of(path): path for path in self.tasks("reference").values()}
        for reference, model in MODELS.items():
            logs = self.data / "lm_eval/reference" / reference
            wanted = []
            for file in sorted(logs.glob("results_*.json")):
                # A log that is missing is a sample on one side alone.
                for task, n in json.loads(file.read_text(encoding="utf-8"))["n-samples"].items():
                    wanted.append((tasks[task], n["effective"], SHOTS.get(tasks[task].stem)))
            if not wanted:
                self.short.append(f"{reference}: there are no results of lm-eval's in {logs}")
            out = self.ours(self.data / model, "float32", wanted, self.work / "ours" / reference)
            self.judge(reference, logs, out, len(wanted))

    def on_smollm2(self):
        tasks = self.tasks("smollm2")
        limits = {"gsm8k": N_GENERATED, "lambada": max(N_LAMBADA, self.limit)}
        wanted = [(path, limits.get(name, self.limit), SHOTS.get(name)) for name, path in tasks.items()]
        theirs = self.theirs(self.smollm2, "float32", wanted, self.work / "theirs")
        self.judge("SmolLM2-135M", theirs, self.ours(self.smollm2, "float32", wanted, self.work / "ours/smollm2"), len(wanted))
        flags = [json.loads(line)["acc"] for line in (theirs / "samples_local_lambada_openai.jsonl").open(encoding="utf-8")]
        n_greedy = int(sum(flags))
        print(f"  lambada: {n_greedy} of {len(flags)} last words are greedy")
        if not 0 < n_greedy < len(flags):
            self.short.append("lambada's greedy flag has one value alone")

    def in_bfloat16(self):
        """As many decisions are lm-eval's in bfloat16 as lm-eval's own in bfloat16 are its own in float32."""
        tasks = self.tasks("bfloat16")
        wanted = [(tasks[name], N_BFLOAT16, None) for name in BFLOAT16]
        for what, model in {"SmolLM2-135M": self.smollm2, "stories260K": self.data / MODELS["stories260K"]}.items():
            work = self.work / f"bfloat16-{what}"
            theirs, theirs16 = (self.theirs(model, dtype, wanted, work / dtype) for dtype in ("float32", "bfloat16"))
            own, other = self.rate(theirs, theirs16), self.rate(theirs16, self.ours(model, "bfloat16", wanted, work / "ours"))
            print(f"== bfloat16, {what}: {other[0]} of {other[1]} of our decisions are lm-eval's in bfloat16; of lm-eval's own in bfloat16 "
                  f"{own[0]} of {own[1]} are those in float32")
            if other[1] != own[1] or own[1] == 0 or other[0] < own[0]:
                self.short.append(f"bfloat16, {what}: fewer decisions are equal than between lm-eval's own two")

    def rate(self, a, b):
        """(equal decisions, decisions)"""
        n, unequal = 0, 0
        for task in self.compared(a, b)["tasks"]:
            for metric in task["metrics"]:
                if metric["decides"]:
                    n += task["n_compared"]
                    unequal += metric["n_unequal"] + metric["n_excused"]
        return n - unequal, n


def task_of(path):
    return next(line.split(":", 1)[1].strip() for line in path.open(encoding="utf-8") if line.startswith("task:"))


def main():
    programs, smollm2, data, work = map(Path, sys.argv[1:5])
    parity = Parity(programs, smollm2, data, work, int(sys.argv[5]))
    parity.references()
    parity.on_smollm2()
    parity.in_bfloat16()
    for short in parity.short:
        print(f"SHORT {short}")
    print(f"{len(parity.short)} comparisons fell short")
    sys.exit(bool(parity.short))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
