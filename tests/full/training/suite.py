"""Writes a small suite over the text that the examples train on: suite.py TEXT OUT"""

import json
import sys
from pathlib import Path

text, out = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
out.mkdir()
words = text.split()
rolling = [{"text": " ".join(words[at : at + 12])} for at in range(0, 240, 12)]
choice = [
    {"question": " ".join(words[at : at + 6]), "right": words[at + 6], "wrong": words[at + 60]}
    for at in range(0, 200, 10)
]
for name, rows in (("rolling", rolling), ("choice", choice)):
    (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
(out / "rolling.yaml").write_text(
    """task: words_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: rolling.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
metadata: {version: 1.0}
"""
)
(out / "choice.yaml").write_text(
    """task: words_choice
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{[right, wrong]}}"
doc_to_target: 0
metric_list:
  - metric: acc
metadata: {version: 1.0}
"""
)
(out / "suite.yaml").write_text("suite: words\ntasks: [rolling.yaml, choice.yaml]\n")
