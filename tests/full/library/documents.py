"""The real evaluation sets as the library's tasks and lm-eval's take them: documents by task and split, for lm-eval as lists, for
ours as files of every kind that a source may have. Where a set has one split only, those documents stand for the scored
split and for the one that shots are drawn from; where it has another form than the Hub's, it is brought to that one.
"""

import csv
import json
import pathlib
import re

import pyarrow
import pyarrow.parquet

# Folder, and the splits that its one file of documents stands for.
PLAIN = {
    "hellaswag": ("hellaswag", ("validation", "train")),
    "piqa": ("piqa", ("validation", "train")),
    "winogrande": ("winogrande", ("validation", "train")),
    "arc_easy": ("arc_easy", ("test", "validation", "train")),
    "arc_challenge": ("arc_challenge", ("test", "validation", "train")),
    "openbookqa": ("openbookqa", ("test", "validation", "train")),
    "copa": ("copa", ("validation", "train")),
    "sciq": ("sciq", ("test", "validation", "train")),
    "social_iqa": ("social_iqa", ("validation", "train")),
    "commonsense_qa": ("commonsense_qa", ("validation", "train")),
}


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def cells(text):
    return [part.strip() for part in text.split(";") if part.strip()]


def truthfulqa(path):
    documents = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            right, wrong, best = cells(row["Correct Answers"]), cells(row["Incorrect Answers"]), row["Best Answer"].strip()
            documents.append({
                "question": row["Question"],
                "mc1_targets": {"choices": [best] + wrong, "labels": [1] + [0] * len(wrong)},
                "mc2_targets": {"choices": right + wrong, "labels": [1] * len(right) + [0] * len(wrong)},
            })
    return documents


def pages(path):
    """The articles of a file of WikiText, of which each begins with its title on a line of its own."""
    text = path.read_text(encoding="utf-8")
    return [{"page": page} for page in re.split(r"(?m)^(?= = [^=].* = $)", text) if page.strip()]


def real(folder):
    """Documents by task and split; of mmlu by the names of its files."""
    sets = {}
    for task, (name, splits) in PLAIN.items():
        documents = lines(folder / name / "validation.jsonl")
        sets[task] = {split: documents for split in splits}
    boolq = [dict(document, label=int(document["answer"])) for document in lines(folder / "boolq/validation.jsonl")]
    for document in boolq:
        del document["answer"]
    sets["boolq"] = {"validation": boolq, "train": boolq}
    tests = lines(folder / "gsm8k/test.jsonl")
    sets["gsm8k"] = {"test": tests, "train": tests}
    sets["lambada_openai"] = {"test": lines(folder / "lambada/test.jsonl")}
    asked = truthfulqa(folder / "truthfulqa/TruthfulQA.csv")
    sets["truthfulqa_mc1"] = sets["truthfulqa_mc2"] = {"validation": asked}
    text = pages(folder / "wikitext2/test.txt")
    sets["wikitext"] = {"test": text, "validation": text[:5], "train": text[:5]}
    # The questions are another set's: this one proves the form of the prompt and no more.
    trivia = [
        {"question": document["question"].rstrip("?"), "answer": {"aliases": document["answer"], "value": document["answer"][0]}}
        for document in lines(folder / "nq_open/validation.jsonl")
    ]
    sets["triviaqa"] = {"validation": trivia, "train": trivia}
    sets["mmlu"] = {split: lines(folder / f"mmlu/{split}.jsonl") for split in ("test", "dev")}
    return sets


def write(folder, task, splits, config):
    """Writes a task's documents in a form of its own: Parquet as the Hub has it in two shards, Parquet, JSON lines or an array."""
    kinds = ["shards", "parquet", "jsonl", "json"]
    kind = "jsonl" if task == "mmlu" else kinds[sum(map(ord, task)) % len(kinds)]
    for split, documents in splits.items():
        if kind == "shards":
            half = len(documents) // 2
            for i, shard in enumerate((documents[:half], documents[half:])):
                parquet(folder / task / config / split / f"{i:04}.parquet", shard)
        elif kind == "parquet":
            parquet(folder / task / f"{split}.parquet", documents)
        else:
            path = folder / task / f"{split}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "jsonl":
                path.write_text("".join(json.dumps(document) + "\n" for document in documents))
            else:
                path.write_text(json.dumps(documents, ensure_ascii=False))
    return kind


def parquet(path, documents):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(documents), path)


def datasets_folder(folder, name, splits):
    """The same as JSON lines for lm-eval: paths by split."""
    paths = {}
    for split, documents in splits.items():
        path = pathlib.Path(folder) / f"{name}-{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(document) + "\n" for document in documents))
        paths[split] = str(path)
    return paths
