"""Task files cut to a number of documents, so that both sides read those alone; and one of long texts."""

import json


def cut(told, folder, tasks):
    """(name, shots, documents) as `YAML` or `YAML:SHOTS`, with data beside them."""
    found = []
    for name, shots, limit in tasks:
        lines = []
        for line in told.task(name).read_text(encoding="utf-8").replace("../../", f"{told.data}/").splitlines():
            key, _, path = line.partition(": ")
            if path.endswith(".jsonl") and key.strip() in ("test", "validation"):
                to = folder / f"{name}-{key.strip()}.jsonl"
                with open(path, encoding="utf-8") as file:
                    to.write_text("".join(document for _, document in zip(range(limit), file)), encoding="utf-8")
                line = f"{key}: {to}"
            if shots and line.startswith("validation_split:"):
                # These files have no other split: shots are drawn from the scored one.
                lines.append("fewshot_split: validation")
            lines.append(line)
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        found.append(f"{folder / name}.yaml" + (f":{shots}" if shots else ""))
    return found


def prefill(told, n):
    """Long texts that share nothing, of which one word is wanted: full batches and nothing but the layers' work."""
    folder = told.folder("prefill")
    text = (told.data / "run/val.txt").read_text(encoding="utf-8")
    size, step = 9000, 1013
    texts = [text[at : at + size] for at in range(0, (len(text) - size) // step * step, step)][:n]
    with open(folder / "prefill.jsonl", "w", encoding="utf-8") as file:
        for i, text in enumerate(texts):
            # None begins as another does.
            file.write(json.dumps({"context": f"{i * 7919 % 1000} {text}", "ending": " and"}) + "\n")
    task = {
        "task": "prefill",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "prefill.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{ending}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    # JSON is YAML.
    (folder / "prefill.yaml").write_text(json.dumps(task), encoding="utf-8")
    return folder / "prefill.yaml"
