"""Every Python block of docs/TRAINING.md stands, word for word, in the file that the line before it names: snippets.py

Prints how many; the files are run by tests/full/training.sh, the module by tests/accept/training.sh too.
"""

import re
import sys
import textwrap
from pathlib import Path

docs = Path(__file__).resolve().parents[3] / "docs"
page = (docs / "TRAINING.md").read_text()
blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
named = re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)^```", page, re.M | re.S)
wrong = [] if len(blocks) == len(named) else [f"{len(blocks) - len(named)} blocks name no file"]
for file, block in named:
    part = textwrap.dedent(block).strip("\n").splitlines()
    lines = (docs / file).read_text().splitlines()
    spans = (lines[at : at + len(part)] for at in range(len(lines)))
    if not any(textwrap.dedent("\n".join(span)).splitlines() == part for span in spans):
        wrong.append(f"{file} does not have: {part[0]} ...")
print(f"{len(blocks)} blocks" + "".join(f"\n    {text}" for text in wrong), file=sys.stderr if wrong else sys.stdout)
raise SystemExit(1 if wrong or not blocks else 0)
