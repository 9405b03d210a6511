"""learned.py SCORES.csv TABLE.txt PAGE.html: what the demo printed and shows is what the registry serves, and it shows
learning."""

import csv
import re
import sys

MEASURED = [("agreement", "acc"), ("arithmetic", "acc"), ("facts", "acc"), ("copying", "acc"), ("held_out_text", "bits_per_byte")]
CHANCE = {"agreement": 0.5, "arithmetic": 0.25, "facts": 0.25, "copying": 0.25}

scores_path, table_path, page_path = sys.argv[1:]
scores = {}
with open(scores_path, newline="") as file:
    for row in csv.DictReader(file):
        scores[int(row["step"]), row["task"], row["metric"]] = float(row["value"])
steps = sorted({step for step, _, _ in scores})
assert len(steps) >= 10, f"only {len(steps)} steps have scores"
assert set(scores) == {(step, task, metric) for step in steps for task, metric in MEASURED}, "scores are missing"

printed = {}
for line in open(table_path):
    cells = line.split()
    if len(cells) == 8 and cells[0].isdigit():
        printed[int(cells[0])] = cells[3:]
served = {step: [f"{scores[step, task, metric]:.3f}" for task, metric in MEASURED] for step in steps}
assert printed == served, f"the terminal says {printed}, the registry {served}"

page = open(page_path).read()
for step in steps:
    cells = re.search(rf"<tr><th[^>]*><a[^>]*>{step:,}</a></th>(.*?)</tr>", page)
    assert cells, f"step {step} is not on the page"
    for task, metric in MEASURED:
        assert f">{scores[step, task, metric]:.3f}" in cells[1], f"{task} of step {step} is not on the page"

first, last = steps[0], steps[-1]
for task, chance in CHANCE.items():
    begun, ended = scores[first, task, "acc"], scores[last, task, "acc"]
    onset = next((step for step in steps if scores[step, task, "acc"] >= (1 + chance) / 2), None)
    print(f"    {task}: {begun:.2f} -> {ended:.2f}, chance {chance}, half way to 1 at step {onset}")
    # 100 items: five standard errors above chance, and the untrained model within four of it.
    error = (chance * (1 - chance) / 100) ** 0.5
    assert ended > chance + 5 * error, f"{task} is not learned"
    assert abs(begun - chance) < 4 * error, f"{task} is known before training"
bits = [scores[step, "held_out_text", "bits_per_byte"] for step in steps]
print(f"    bits per byte: {bits[0]:.3f} -> {bits[-1]:.3f}")
assert bits[-1] < bits[0] / 1.5, "the text is not learned"
