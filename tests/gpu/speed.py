"""How fast a model of seven billion parameters is evaluated, and what of the device's arithmetic that uses: `speed.py OUT SHAPE`."""

import json
import sys

from part import Broken, lines, main, run
from tasks import cut, prefill
from work import of_task

# (task, shots, documents): what a suite of real lengths is made of.
TASKS = [("mmlu_anatomy", 5, 135), ("hellaswag", None, 400), ("arc_challenge", 5, 100), ("lambada", None, 400), ("val_rolling", None, 24)]
TINY = [("mmlu_anatomy", 5, 2), ("hellaswag", None, 4), ("arc_challenge", 5, 8), ("lambada", None, 4)]


def peak(told):
    """The device's own products in bfloat16, measured beside this."""
    side = str(told.size(8192, 512))
    (rate,) = lines(run([told.measure, "products", *told.how("bfloat16"), "--side", side]).stdout)
    return rate["flops_per_s"]


def tell(part, row, config, peak_flops):
    name = row["task"].removeprefix("local_")
    work = of_task(config, row)
    figures = {
        "requests": row["n_requests"], "tokens asked": row["n_asked"], "tokens computed": row["n_computed"],
        "seconds": row["seconds"], "tokens/s": row["n_computed"] / row["seconds"],
        "utilisation": work["needed"] / row["seconds"] / peak_flops,
        "utilisation by 2PN": work["by_parameters"] / row["seconds"] / peak_flops,
        "attention's share": work["attention"] / work["needed"],
    }
    part.figure(name, {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()})
    return figures


def speed(told, part):
    shape = sys.argv[2]
    folder, made, seconds = told.generated(shape)
    part.figure("generated", {**made, "seconds": seconds})
    if seconds is not None and not told.tiny:
        part.check(f"generated in {seconds:.0f} s, 120 at most", seconds < 120)
    config, peak_flops = json.loads((folder / "config.json").read_text()), peak(told)
    part.figure("the device's bfloat16 product, FLOP/s", peak_flops)
    logs = told.folder(f"logs-{shape}")
    tasks = cut(told, told.folder(f"suite-{shape}"), told.size(TASKS, TINY))
    # The long texts are there for the batches: a processor has small ones.
    long = prefill(told, told.size(96, 2))
    ran = run([told.measure, "tasks", folder, *told.how("bfloat16"), "--logs", logs, str(long), *tasks])
    rows = lines(ran.stdout)
    part.check(f"{len(rows)} of {len(tasks) + 1} tasks were scored", len(rows) == len(tasks) + 1)
    load_s = rows[0]["load_s"]
    part.figure("load", {"seconds": load_s, "GB/s": made["size_bytes"] / load_s / 1e9, "to the first score": rows[0]["since_start_s"]})
    part.figure("host memory's peak, MB", ran.peak_bytes / 1e6)
    all_told = {"prefill": tell(part, rows[0], config, peak_flops)}
    for row in rows[1:]:
        tell(part, row, config, peak_flops)
    whole = {key: sum(row[key] for row in rows[1:]) for key in rows[0] if key.startswith("n_") or key == "seconds"}
    all_told["suite"] = tell(part, {"task": "the suite", **whole}, config, peak_flops)
    part.check("computed tokens look at some, and some are scored", all(row["n_looked_at"] > 0 and row["n_scored"] > 0 for row in rows))
    if told.on_a_card:
        taken = rows[-1]["taken_bytes"]
        part.figure("the card's memory taken, GB", taken / 1e9)
        for what, least in LEAST.items():
            utilisation = all_told[what]["utilisation"]
            part.check(f"{what}: {utilisation:.0%} of the device's own product, {least:.0%} at least", utilisation >= least)
    else:
        part.wants_a_card("the least utilisation")
    (told.work / f"rows-{shape}.json").write_text(json.dumps({"rows": rows, "tasks": tasks}))


# What is aimed at: of full batches, and of a suite with its small ones; and how many times as fast as lm-eval the suite is.
LEAST = {"prefill": 0.50, "suite": 0.25}
LEAST_SPEEDUP = 3


def theirs(told, part):
    """lm-eval's `hf` on the same checkpoint and tasks, with the best of some batch sizes."""
    folder, _, _ = told.generated("amber")
    rows = told.work / "rows-amber.json"
    if not rows.exists():
        raise Broken("the part `speed-amber` comes first: its times are what is compared")
    kept = json.loads(rows.read_text())
    sizes = told.size([8, 32], [1, 4])
    # The first is to warm up: ours has done a task before as well.
    jobs = [
        {"name": "amber" if i else "warm-up", "model": str(folder), "dtype": "bfloat16", "device": told.device, "batch": size,
         "tasks": kept["tasks"] if i else kept["tasks"][:1], "out": str(told.folder(f"theirs-amber-{i}"))}
        for i, size in enumerate([sizes[0], *sizes])
    ]
    (told.work / "jobs-amber.json").write_text(json.dumps(jobs))
    ran = run([told.python, told.tests / "gpu/jobs.py", told.work / "jobs-amber.json"])
    best = {}
    for line in lines(ran.stdout):
        if "error" in line:
            part.figure(f"a batch of {line['batch']}", line["error"])
        if "load_s" in line:
            part.figure("lm-eval's load, s", line["load_s"])
        if "task" in line and line["job"] == "amber" and (line["task"] not in best or line["seconds"] < best[line["task"]]["seconds"]):
            best[line["task"]] = line
    mine = {row["task"]: row for row in kept["rows"] if row["task"] != "prefill"}
    part.check(f"lm-eval did {len(best)} of {len(mine)} tasks", best.keys() == mine.keys())
    for task, line in best.items():
        row = mine[task]
        part.figure(task.removeprefix("local_"), {
            "lm-eval, s": round(line["seconds"], 3), "with a batch of": line["batch"], "Fineline, s": round(row["seconds"], 3),
            "speedup": round(line["seconds"] / row["seconds"], 2), "tokens": [line["n_computed"], row["n_computed"]],
        })
    speedup = sum(line["seconds"] for line in best.values()) / sum(row["seconds"] for row in mine.values())
    part.figure("speedup of the suite", speedup)
    if told.on_a_card:
        part.check(f"the suite is {speedup:.2f} times as fast as with lm-eval, {LEAST_SPEEDUP} at least", speedup >= LEAST_SPEEDUP)
    else:
        part.wants_a_card(f"that the suite is {LEAST_SPEEDUP} times as fast as with lm-eval")


if __name__ == "__main__":
    main(theirs if sys.argv[2] == "lm-eval" else speed)
