"""The library's tasks against lm-eval's own: lm-eval's task as its package has it, groups and Python included, where only the
loading of data is led to local files, and ours from the program, both with answers that follow from a hash of what is asked.
Every request, target, filtered answer, metric, hash, score, standard error and group of every task is compared. Exit 1 when
one differs.

python3 compare_library.py PROGRAM DATA [NAME...]    PROGRAM is the evaluator's example `library`, DATA the evaluation sets
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

work = pathlib.Path(tempfile.mkdtemp())
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(work / "cache"), TQDM_DISABLE="1")

import datasets
import lm_eval
from lm_eval.utils import handle_non_serializable

import documents
from fake import Fake

# Task, shots (None: its own), documents (None: all).
CASES = [
    ("hellaswag", None, None),
    ("hellaswag", 10, 500),
    ("piqa", None, None),
    ("piqa", 5, 500),
    ("winogrande", None, None),
    ("winogrande", 5, 500),
    ("arc_easy", None, None),
    ("arc_easy", 5, 300),
    ("arc_challenge", None, None),
    ("arc_challenge", 25, None),
    ("openbookqa", None, None),
    ("openbookqa", 5, None),
    ("boolq", None, None),
    ("boolq", 3, 500),
    ("copa", None, None),
    ("copa", 4, None),
    ("sciq", None, None),
    ("sciq", 3, 500),
    ("social_iqa", None, None),
    ("social_iqa", 5, 500),
    ("commonsense_qa", None, None),
    ("commonsense_qa", 7, None),
    ("truthfulqa_mc1", None, None),
    ("truthfulqa_mc2", None, None),
    # Its file says 0.
    ("truthfulqa_mc2", 5, 100),
    ("triviaqa", None, None),
    ("triviaqa", 5, 500),
    ("gsm8k", None, None),
    ("gsm8k", 8, 300),
    ("gsm8k", 0, 300),
    ("lambada_openai", None, 400),
    ("lambada_openai", None, None),
    ("wikitext", None, None),
    ("mmlu", None, None),
    ("mmlu", 5, None),
]
# lm-eval's bootstrap takes minutes for these: it gives no standard errors, which are compared for fewer documents.
WITHOUT_STDERR = {("lambada_openai", None, None)}
SAME = ("doc_id", "target", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash")
load_dataset = datasets.load_dataset


class Differences:
    def __init__(self):
        self.n = 0

    def check(self, place, ours, theirs):
        if ours != theirs:
            self.n += 1
            if self.n <= 20:
                print(f"  {place}: {str(ours)[:300]!r} is not {str(theirs)[:300]!r}")

    def near(self, place, ours, theirs):
        if not (isinstance(ours, (int, float)) and math.isclose(ours, float(theirs), rel_tol=1e-9, abs_tol=1e-12)):
            self.check(place, ours, theirs)


def lead_to(splits_of):
    """lm-eval's loading of data, led to local files by data set and configuration."""

    def load(path, name=None, **_):
        return load_dataset("json", data_files=splits_of(path, name))

    datasets.load_dataset = load


def theirs_of(task, splits, shots, limit, has_stderr):
    folder = work / "theirs" / task

    def splits_of(_, config):
        if task != "mmlu":
            return documents.datasets_folder(folder, "all", splits)
        own = {split: [document for document in all if document["subject"] == config] for split, all in splits.items()}
        return documents.datasets_folder(folder, config, own)

    lead_to(splits_of)
    return lm_eval.simple_evaluate(
        model=Fake(),
        tasks=[task],
        num_fewshot=shots,
        limit=limit,
        log_samples=True,
        bootstrap_iters=100_000 if has_stderr else 0,
        verbosity="ERROR",
    )


def number(value):
    return value if isinstance(value, (int, float)) else float(value)


def compare_samples(differ, task, ours, theirs):
    differ.check(f"{task}: samples", len(ours), len(theirs))
    for mine, other in zip(ours, theirs):
        place = f"{task} {other['doc_id']}"
        # As lm-eval writes its logs.
        arguments = {
            f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(request)} for i, request in enumerate(other["arguments"])
        }
        other = json.loads(json.dumps(dict(other, arguments=arguments, target=str(other["target"])), default=handle_non_serializable))
        differ.check(f"{place}: requests", mine["arguments"], other["arguments"])
        for field in SAME:
            differ.check(f"{place}: {field}", mine[field], other[field])
        if mine["filter"] != "none":
            differ.check(f"{place}: filtered", mine["filtered_resps"], other["filtered_resps"])
        for metric in other["metrics"]:
            a, b = mine[metric], other[metric]
            pairs = zip(a, b) if isinstance(b, list) else [(a, b)]
            for x, y in pairs:
                differ.near(f"{place}: {metric}", number(x), number(y))


def compare_scores(differ, task, rows, result, has_stderr):
    told = {name for name in result if "," in name}
    for row in rows:
        name = f"{row['metric']},{row['filter']}"
        differ.near(f"{task}: {name}", row["value"], result.get(name, math.nan))
        stderr = result.get(f"{row['metric']}_stderr,{row['filter']}")
        if not has_stderr:
            differ.check(f"{task}: {name} stderr", stderr, "N/A")
        elif stderr == "N/A":
            differ.check(f"{task}: {name} stderr", row["stderr_method"], "ratio_over_documents")
        else:
            differ.near(f"{task}: {name} stderr", row["stderr"], stderr)
        told -= {name, f"{row['metric']}_stderr,{row['filter']}"}
    differ.check(f"{task}: scores that ours lacks", told, set())


def compare_groups(differ, groups, ours, theirs):
    """What the registry makes of a group's tasks (weighted by size, the pooled standard error) is here worked out of our scores."""
    differ.check("groups", {group["group"] for group in groups}, set(theirs.get("groups", {})))
    for group in groups:
        name = group["group"]
        result = theirs["groups"].get(name, {})
        differ.check(f"{name}: version", group["version"], str(theirs["versions"].get(name)))
        rows = [row for task in group["tasks"] for row in ours[task]["scores"]]
        for metric in group["metrics"]:
            differ.check(f"{name}: weights", metric["weight_by_size"], True)
            parts = [row for row in rows if row["metric"] == metric["metric"]]
            n, k = sum(row["n"] for row in parts), len(parts)
            value = sum(row["value"] * row["n"] for row in parts) / n
            pooled = math.sqrt(sum((row["n"] - 1) * row["stderr"] ** 2 * row["n"] for row in parts) / (n - k) / n)
            differ.near(f"{name}: {metric['metric']}", value, result.get(f"{metric['metric']},none", math.nan))
            differ.near(f"{name}: stderr", pooled, result.get(f"{metric['metric']}_stderr,none", math.nan))


def main(program, data, *only):
    unknown = set(only) - {task for task, _, _ in CASES}
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: no such case; there are {', '.join(sorted({task for task, _, _ in CASES}))}")
    sets = documents.real(pathlib.Path(data))
    differ = Differences()
    totals = dict(tasks=set(), documents=0, requests=0, scores=0, groups=0)
    configs = {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge", "winogrande": "winogrande_xl", "openbookqa": "main",
               "boolq": "boolq", "copa": "copa", "gsm8k": "main", "lambada_openai": "default", "triviaqa": "rc.nocontext",
               "wikitext": "wikitext-2-raw-v1", "truthfulqa_mc1": "multiple_choice", "truthfulqa_mc2": "multiple_choice"}
    kinds = {task: documents.write(work / "ours", task, splits, configs.get(task, "default")) for task, splits in sets.items()}
    for task, shots, limit in CASES:
        if only and task not in only:
            continue
        out = work / "out" / f"{task}-{shots}-{limit}"
        arguments = ["-" if value is None else str(value) for value in (shots, limit)]
        subprocess.run([program, work / "ours", out, task, *arguments], check=True)
        ours = json.loads((out / "results.json").read_text())
        has_stderr = (task, shots, limit) not in WITHOUT_STDERR
        theirs = theirs_of(task, sets[task], shots, limit, has_stderr)
        before, n_documents, n_requests, n_scores = differ.n, 0, 0, 0
        differ.check("tasks", set(ours["tasks"]), set(theirs["samples"]))
        for name, mine in ours["tasks"].items():
            samples = documents.lines(out / f"samples_{name}.jsonl")
            compare_samples(differ, name, samples, theirs["samples"].get(name, []))
            n_requests += mine["n_requests"]
            n_documents += len({sample["doc_id"] for sample in samples})
            compare_scores(differ, name, mine["scores"], theirs["results"].get(name, {}), has_stderr)
            n_scores += len(mine["scores"])
            version = theirs["configs"][name]["metadata"] or {}
            stated = mine["scores"][0]["provenance"]["task_version"]
            differ.check(f"{name}: version", stated, str(version.get("version", "")))
            differ.check(f"{name}: shots", mine["scores"][0]["n_shot"], theirs["n-shot"][name])
        compare_groups(differ, ours["groups"], ours["tasks"], theirs)
        told = "its own" if shots is None else shots
        print(f"{task} ({kinds[task]}), {told} shots: {n_documents} documents, {n_requests} requests, {n_scores} scores, "
              f"{len(ours['groups'])} groups, {differ.n - before} differences", flush=True)
        totals["tasks"] |= set(ours["tasks"])
        totals["documents"] += n_documents
        totals["requests"] += n_requests
        totals["scores"] += n_scores
        totals["groups"] += len(ours["groups"])
    print(f"library: {len(totals['tasks'])} tasks, {totals['documents']} documents, {totals['requests']} requests, "
          f"{totals['scores']} scores and {totals['groups']} groups compared with lm-eval's, {differ.n} differences")
    return 1 if differ.n or not totals["scores"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
