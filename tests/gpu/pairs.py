"""Requests of real texts: choices that share a context, single tokens, texts longer than the model, empty contexts."""

import json


def read(path, n):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(n), file)]


def pairs(data, n):
    """(group, context, continuation): the requests of a group are one decision; a group of None is none."""
    found = []
    for i, doc in enumerate(read(data / "eval/hellaswag/validation.jsonl", n)):
        found += [(f"hellaswag {i}", doc["ctx"], " " + ending) for ending in doc["endings"]]
    for i, doc in enumerate(read(data / "eval/arc_easy/validation.jsonl", n)):
        found += [(f"arc {i}", f"Question: {doc['question']}\nAnswer:", " " + text) for text in doc["choices"]["text"]]
    for i, doc in enumerate(read(data / "eval/mmlu/anatomy_test.jsonl", n)):
        found += [(f"mmlu {i}", f"{doc['question'].strip()}\nAnswer:", f" {letter}") for letter in "ABCD"]
    text = (data / "run/val.txt").read_text(encoding="utf-8")
    for i in range(max(2, n // 4)):
        at = 500 + 1700 * i
        # Longer than what these models read: the beginning is cut off.
        found.append((None, text[at : at + 1500], text[at + 1500 : at + 1560]))
        found.append((None, text[at : at + 1 + 7 * i], text[at + 1 + 7 * i : at + 60 + 7 * i]))
    words = text.split(" ")
    # The next word, which now and then is the likeliest.
    found += [(None, " ".join(words[60 * i : 60 * i + 40]), f" {words[60 * i + 40]}") for i in range(1, 5 * n)]
    found += [(None, "", "Once upon a time"), (None, "a ", "b"), (None, "Grüße, 世界 🙂", " und 再见"), (None, "x", " y")]
    return found
