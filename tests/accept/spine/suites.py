"""Writes a suite file for each of lm-eval's reference results, with its limit, shots and length of texts: suites.py LM_EVAL OUT"""

import json
import pathlib
import sys

lm_eval, out = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
files = {}
for path in sorted((lm_eval / "tasks").glob("*.yaml")):
    text = path.read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("task:"))
    files[name] = path.resolve()


def write(suite, tasks, limit, shots):
    lines = [f"suite: {suite}", f"limit: {limit}"]
    if shots:
        lines.append(f"num_fewshot: {shots}")
    lines += ["tasks:"] + [f"  - {files[task]}" for task in tasks]
    (out / f"{suite}.yaml").write_text("\n".join(lines) + "\n")


def shortened(task, max_tokens):
    """The task with texts of at most so many tokens."""
    text = (lm_eval / "tasks" / files[task].name).read_text().replace("../../", f"{lm_eval.parent.resolve()}/")
    before, found, after = text.partition("generation_kwargs:\n")
    assert found, f"{task} generates nothing"
    path = out / "tasks" / files[task].name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before}{found}  max_gen_toks: {max_tokens}\n{after}")
    files[task] = path.resolve()


def of_reference(prefix, folder):
    for path in sorted((lm_eval / "reference" / folder).glob("results_*.json")):
        results = json.loads(path.read_text())
        tasks = list(results["results"])
        if tasks:
            shots = {results["n-shot"][task] for task in tasks}
            assert len(shots) == 1, f"{path}: one suite has one number of shots, found {shots}"
            name = path.stem.removeprefix("results_")
            if max_tokens := results["config"]["gen_kwargs"].get("max_gen_toks"):
                for task in tasks:
                    shortened(task, max_tokens)
            write(f"{prefix}-{name}", tasks, int(results["config"]["limit"]), shots.pop())


of_reference("run", "run-step-003000")
of_reference("stories", "stories260K")
write("rolling", ["local_val_rolling"], 100, 0)
