"""A task of one text of more than 8,192 tokens: `long.py TEXT DIR` writes DIR/long.yaml and its data."""

import json
import sys
from pathlib import Path

text, folder = Path(sys.argv[1]).read_text(encoding="utf-8")[:60_000], Path(sys.argv[2]).resolve()
(folder / "long.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
task = {
    "task": "long",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": str(folder / "long.jsonl")}},
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}
# JSON is YAML.
(folder / "long.yaml").write_text(json.dumps(task), encoding="utf-8")
