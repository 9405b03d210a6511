"""Writes two suites of lm-eval's own tasks, and lm-eval's reference results as scores to post: suites.py LM_EVAL OUT"""

import json
import pathlib
import sys

lm_eval, out = map(pathlib.Path, sys.argv[1:])
SUITES = {
    "language": ["local_blimp_determiner_noun_agreement_1", "local_blimp_anaphor_gender_agreement", "local_val_rolling"],
    "knowledge": ["local_arc_easy", "local_piqa", "local_lambada_openai"],
}
files = {}
for path in sorted((lm_eval / "tasks").glob("*.yaml")):
    name = next(line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("task:"))
    files[name] = path.resolve()
for suite, tasks in SUITES.items():
    lines = [f"suite: {suite}", "limit: 100", "tasks:"] + [f"  - {files[task]}" for task in tasks]
    (out / f"{suite}.yaml").write_text("\n".join(lines) + "\n")

for step in (512, 3000):
    found = json.loads((lm_eval / f"reference/run-step-{step:06d}/results_all.json").read_text())
    scores = []
    for task in sum(SUITES.values(), []):
        values = found["results"][task]
        for key, value in values.items():
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr"):
                continue
            stderr = values.get(f"{metric}_stderr,{name}")
            scores.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": name,
                    "value": value,
                    "stderr": stderr if isinstance(stderr, float) else None,
                    "n": values["sample_len"],
                    "higher_is_better": found["higher_is_better"][task][metric],
                    "dtype": "float32",
                }
            )
    (out / f"lm-eval-{step}.json").write_text(json.dumps(scores))

long = {"task": "a_task_whose_name_goes_on_" * 9, "metric": "a_metric_whose_name_goes_on_" * 4, "value": 0.5, "stderr": 0.05, "n": 100}
(out / "long.json").write_text(json.dumps([long]))
