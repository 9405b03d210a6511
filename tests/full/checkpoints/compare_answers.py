"""Log-likelihoods of a checkpoint with a tokenizer.model alone, against lm-eval's: a model with weights that follow from their
names, and texts longer and shorter than what it reads. Exit 1 when one differs.

python3 compare_answers.py PROGRAM TEXTS MODEL    PROGRAM is the evaluator's example `measure`, MODEL a tokenizer.model
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import shapes


def checkpoint(model):
    folder = tempfile.mkdtemp()
    fields = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=1500, max_position_embeddings=64)
    made = shapes.model(dict(shapes.BASE, **fields))
    made.save_pretrained(folder)
    shutil.copy(model, folder)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "model_max_length": 33}
    (pathlib.Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def pairs(texts):
    """transformers 5 puts no space before a text that begins with one, and SentencePiece does: none here does."""
    rng = random.Random(5)
    usual = [text for text in texts if len(text) > 8 and text[0].isalnum()]
    given = [("", "word"), ("<s>", " a word"), ("<s>a", "b"), ("a ", "b"), ("a </s>", "b")]
    for text in rng.sample(usual, 300):
        # lm-eval takes no continuation that is longer than what the model reads.
        at = rng.randrange(max(1, len(text) - 15), len(text))
        given.append((text[:at], text[at:]))
    return given


def main(program, texts, model):
    folder = checkpoint(model)
    given = pairs([json.loads(line) for line in pathlib.Path(texts).read_text().split("\n") if line])
    # Its cache mixes up pairs that together are the same text and are cut at different places, of which there are some here.
    engine = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8, logits_cache=False)
    # Nor one without a token of its own.
    given = [pair for pair in given if not pair[0] or engine._encode_pair(*pair)[1]]
    lines = "".join(json.dumps(pair) + "\n" for pair in given)
    ran = subprocess.run([program, "answers", folder], input=lines.encode(), capture_output=True)
    print(ran.stderr.decode(), end="")
    ours = [json.loads(line) for line in ran.stdout.decode().split("\n") if line]
    instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(given)]
    theirs = engine.loglikelihood(instances, disable_tqdm=True)
    wrong = [
        (pair, a, b) for pair, a, b in zip(given, ours, theirs, strict=True)
        if abs(a[0] - b[0]) > 1e-4 + 1e-4 * abs(b[0]) or a[1] != b[1]
    ]
    worst = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs))
    print(f"  {'ok   ' if not wrong else 'SHORT'} lm-eval's log-likelihoods and greedy flags: {len(given) - len(wrong)} of "
          f"{len(given)} are the same, the furthest by {worst:.1e}")
    for pair, a, b in wrong[:5]:
        print(f"    {str(pair)[:120]}: {a} against {b}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
