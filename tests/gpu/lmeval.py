"""Decisions of the device against lm-eval's `hf` on the same device and in the same dtype."""

import json
import sys

from part import Broken, lines, main, run
from tasks import cut

TASKS = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "openbookqa", "copa", "boolq"]


def ours(told, model, dtype, tasks, out):
    out.mkdir(parents=True)
    tables = [] if told.on_a_card else ["--by-tables"]
    run([told.measure, "tasks", model, *told.how(dtype), *tables, "--logs", out, *tasks])
    for log in out.glob("*.jsonl"):
        log.rename(out / f"samples_{log.name}")
    return out


def compared(told, a, b):
    """What `fineline eval compare` says of two folders of sample logs."""
    ran = run([told.fineline, "--json", "eval", "compare", a, b, "--only-common"], ends_well=False)
    if ran.code not in (0, 1):
        raise Broken(f"eval compare {a} {b}: {ran.stderr}")
    return json.loads(ran.stdout)


def rate(told, a, b):
    """(equal decisions, decisions)"""
    n, unequal = 0, 0
    for task in compared(told, a, b)["tasks"]:
        for metric in task["metrics"]:
            if metric["decides"]:
                n += task["n_compared"]
                unequal += metric["n_unequal"] + metric["n_excused"]
    return n - unequal, n


def lmeval(told, part):
    work = told.folder("lmeval")
    tasks = cut(told, work, [(name, None, told.size(80, 6)) for name in TASKS])
    models = told.small_models()
    if told.tiny:
        models.pop("run-step-003000")
    jobs = [
        {
            "name": f"{name} {dtype}", "model": str(model), "dtype": dtype, "device": told.device, "batch": 32,
            "tasks": tasks, "out": str(work / name / f"theirs-{dtype}"),
        }
        for name, model in models.items()
        for dtype in ("float32", "bfloat16")
    ]
    (work / "jobs.json").write_text(json.dumps(jobs))
    ran = run([told.python, told.tests / "gpu/jobs.py", work / "jobs.json"])
    told_of = [line for line in lines(ran.stdout) if "task" in line]
    part.check(f"lm-eval did {len(told_of)} of {len(jobs) * len(TASKS)} tasks", len(told_of) == len(jobs) * len(TASKS))
    for name, model in models.items():
        theirs, theirs16 = (work / name / f"theirs-{dtype}" for dtype in ("float32", "bfloat16"))
        single = ours(told, model, "float32", tasks, work / name / "ours-float32")
        said = compared(told, theirs, single)
        n_compared = sum(task["n_compared"] for task in said["tasks"])
        for breach in said["breaches"][:5]:
            print(f"    {breach}", file=sys.stderr)
        part.check(f"{name}, float32: no breach in {n_compared} samples of {len(said['tasks'])} tasks ({len(said['breaches'])})",
                   not said["breaches"] and len(said["tasks"]) == len(TASKS) and n_compared > 0)
        half = ours(told, model, "bfloat16", tasks, work / name / "ours-bfloat16")
        own, other = rate(told, theirs, theirs16), rate(told, theirs16, half)
        part.figure(f"{name}, bfloat16: equal to lm-eval's in bfloat16, of; lm-eval's own to its float32", [*other, own[0]])
        # Ours and theirs are rounded alike and at other places: what is between them is √2 as wide as what is between theirs and
        # float32, and so many more decisions fall the other way, give or take two standard deviations of the difference.
        unequal = own[1] - own[0]
        allowed = 2**0.5 * unequal + 2 * ((1 + 2**0.5) * unequal) ** 0.5 + 1
        part.check(
            f"{name}, bfloat16: {other[1] - other[0]} decisions of {other[1]} are not lm-eval's, which itself has {unequal} that are not "
            f"its own in float32; at most {allowed:.0f}",
            other[1] == own[1] and own[1] > 0 and other[1] - other[0] <= allowed,
        )


if __name__ == "__main__":
    main(lmeval)
