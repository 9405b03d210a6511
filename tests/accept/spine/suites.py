"""Writes a suite file for each of lm-eval's reference results, with its limit and shots: suites.py LM_EVAL OUT

Left out, as they name a `!function` or generate text: copa, hellaswag, winogrande, gsm8k.
"""

import json
import pathlib
import sys

lm_eval, out = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
files = {}
for path in sorted((lm_eval / "tasks").glob("*.yaml")):
    text = path.read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("task:"))
    if "!function" not in text and "generate_until" not in text:
        files[name] = path.resolve()


def write(suite, tasks, limit, shots):
    lines = [f"suite: {suite}", f"limit: {limit}"]
    if shots:
        lines.append(f"num_fewshot: {shots}")
    lines += ["tasks:"] + [f"  - {files[task]}" for task in tasks]
    (out / f"{suite}.yaml").write_text("\n".join(lines) + "\n")


def of_reference(prefix, folder):
    for path in sorted((lm_eval / "reference" / folder).glob("results_*.json")):
        results = json.loads(path.read_text())
        tasks = [task for task in results["results"] if task in files]
        if tasks:
            shots = {results["n-shot"][task] for task in tasks}
            assert len(shots) == 1, f"{path}: one suite has one number of shots, found {shots}"
            name = path.stem.removeprefix("results_")
            write(f"{prefix}-{name}", tasks, int(results["config"]["limit"]), shots.pop())


of_reference("run", "run-step-003000")
of_reference("stories", "stories260K")
write("rolling", ["local_val_rolling"], 100, 0)
