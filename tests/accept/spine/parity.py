"""Compares our sample logs with lm-eval's, sample by sample: parity.py REFERENCE URL RUN@STEP=FOLDER ...

"The same", in float32 on the CPU: the decision of a sample is identical unless lm-eval's own gap between its top two
answers is below 1e-5 relative; a log-likelihood differs by at most 1e-4 absolute + 1e-4 relative; a greedy flag is
identical unless listed; a generated text and what a filter makes of it are identical. The number compared must be the number in
lm-eval's log.
"""

import json
import os
import pathlib
import sys
import urllib.request

FINELINE_URL = sys.argv[2]


def get(path):
    request = urllib.request.Request(FINELINE_URL + "/api/v1" + path)
    request.add_header("Authorization", f"Bearer {os.environ['FINELINE_TOKEN']}")
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def is_text(sample):
    """Whether a text was asked for: the second argument says how it is to be generated."""
    return isinstance(sample["arguments"]["gen_args_0"].get("arg_1"), dict)


def log_likelihood(resp):
    """One of `resps`: [[log-likelihood, greedy]], or [log-likelihood] for rolling; lm-eval writes them as text."""
    value = resp[0]
    if isinstance(value, list):
        return float(value[0]), str(value[1]) == "True" if not isinstance(value[1], bool) else value[1]
    return float(value), None


def gap(values):
    first, second = sorted(values, reverse=True)[:2]
    return (first - second) / abs(first) if first else first - second


def compare(ours, theirs):
    """Figures of one task: samples, responses, largest difference, decisions that differ, those excused, faults."""
    figures = dict(samples=0, responses=0, worst=0.0, differ=0, excused=0, greedy_differ=0, faults=[])
    for (doc_id, which), reference in theirs.items():
        sample = ours.get((doc_id, which))
        if sample is None:
            figures["faults"].append(f"sample {doc_id} is missing")
            continue
        figures["samples"] += 1
        if is_text(reference):
            figures["responses"] += len(reference["resps"])
            for field in ("arguments", "resps", "filtered_resps", *reference["metrics"]):
                if sample[field] != reference[field]:
                    figures["differ"] += 1
                    figures["faults"].append(f"sample {doc_id}: {field} {sample[field]!r} against {reference[field]!r}")
            continue
        mine, lm_eval = ([log_likelihood(resp) for resp in s["resps"]] for s in (sample, reference))
        if len(mine) != len(lm_eval):
            figures["faults"].append(f"sample {doc_id} has {len(mine)} responses, lm-eval {len(lm_eval)}")
            continue
        for (value, greedy), (their_value, their_greedy) in zip(mine, lm_eval):
            figures["responses"] += 1
            difference = abs(value - their_value)
            figures["worst"] = max(figures["worst"], difference)
            if difference > 1e-4 + 1e-4 * abs(their_value):
                figures["faults"].append(f"sample {doc_id}: log-likelihood {value} against {their_value}")
            if greedy != their_greedy:
                figures["greedy_differ"] += 1
                figures["faults"].append(f"sample {doc_id}: greedy {greedy} against {their_greedy}")
        for metric in ("acc", "acc_norm"):
            if metric in reference and float(sample[metric]) != float(reference[metric]):
                values = [value for value, _ in lm_eval]
                if metric == "acc_norm":
                    lengths = [len(a["arg_1"].removeprefix(" ")) for a in reference["arguments"].values()]
                    values = [value / length for value, length in zip(values, lengths)]
                if len(values) > 1 and gap(values) < 1e-5:
                    figures["excused"] += 1
                else:
                    figures["differ"] += 1
                    figures["faults"].append(f"sample {doc_id}: {metric} {sample[metric]} against {reference[metric]}")
    if len(ours) != len(theirs):
        figures["faults"].append(f"we logged {len(ours)} samples, lm-eval {len(theirs)}")
    return figures


def read(text):
    return {(sample["doc_id"], sample["filter"]): sample for sample in map(json.loads, text.splitlines())}


short = False
for argument in sys.argv[3:]:
    name, folder = argument.split("=")
    run, step = name.split("@")
    evaluations = json.loads(get(f"/evaluations?run={run}&ref={step}&limit=1000"))["items"]
    suites = {e["suite_digest"]: json.loads(get(f"/suites/{e['suite_digest']}")) for e in evaluations}
    where = {task["task"]: e["id"] for e in evaluations for task in suites[e["suite_digest"]]["tasks"]}
    print(f"    {name} against lm-eval's {folder}")
    print(f"    {'task':55} samples  resps  differ  excused  greedy  largest difference")
    n_tasks = 0
    for path in sorted((pathlib.Path(sys.argv[1]) / folder).glob("samples_*.jsonl")):
        task = path.stem.removeprefix("samples_")
        n_tasks += 1
        if task not in where:
            print(f"    {task:55} was not evaluated")
            short = True
            continue
        figures = compare(read(get(f"/evaluations/{where[task]}/tasks/{task}/samples")), read(path.read_text()))
        print("    {:55} {samples:7} {responses:6} {differ:7} {excused:8} {greedy_differ:7}  {worst:.3e}".format(task, **figures))
        for fault in figures["faults"][:5]:
            print(f"      {fault}")
        short |= bool(figures["faults"])
    short |= n_tasks == 0
sys.exit(short)
