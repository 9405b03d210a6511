"""Compares ids and texts with the sentencepiece, tokenizers and transformers packages: a line a comparison, and exit 1 when
one differs.

python3 compare_tokens.py PROGRAM TEXTS MODELS FIXTURES [DATA]    PROGRAM is the evaluator's example `tokens`, FIXTURES
evaluator/tests/sentencepiece; DATA may hold tokenizers too
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import sentencepiece as spm
from tokenizers import decoders

os.environ["HF_HUB_OFFLINE"] = "1"
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>"]
differing = []


def said(program, folder, lines):
    """What our program says of each text; its words when it refuses."""
    given = "".join(json.dumps(line) + "\n" for line in lines)
    ran = subprocess.run([program, folder], input=given.encode(), capture_output=True, env=dict(os.environ, RUST_BACKTRACE="0"))
    if ran.returncode:
        return ran.stderr.decode()
    return [json.loads(line) for line in ran.stdout.decode().split("\n") if line]


def same(what, lines, ours, theirs):
    assert len(lines) == len(ours) == len(theirs), (len(lines), len(ours), len(theirs))
    wrong = [i for i in range(len(lines)) if ours[i] != theirs[i]]
    print(f"  {'ok   ' if not wrong else 'SHORT'} {what}: {len(lines) - len(wrong)} of {len(lines)} texts are the same")
    for i in wrong[:3]:
        print(f"    {lines[i][:80]!r}: {ours[i] if len(str(ours[i])) < 300 else '…'} against {theirs[i] if len(str(theirs[i])) < 300 else '…'}")
    if wrong:
        differing.append(what)


def with_config(source, files, config, beside=None):
    folder = pathlib.Path(tempfile.mkdtemp())
    for name in files:
        shutil.copy(source / name, folder)
    for name, content in (beside or {}).items():
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return folder


def sentencepiece(program, folder, lines):
    model = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = said(program, folder, lines)
    if isinstance(ours, str):
        print(f"  SHORT {folder.name} is refused: {ours}")
        return differing.append(folder.name)
    ids = model.encode(lines)
    same(f"{folder.name}: SentencePiece's ids", lines, [line["pieces"] for line in ours], ids)
    plain = [i for i, line in enumerate(lines) if not any(token in line for token in SPECIAL)]
    at = lambda values: [values[i] for i in plain]
    same(f"{folder.name}: ids with BOS", at(lines), at([line["ids"] for line in ours]), at([[1] + line for line in ids]))
    # Decoding as transformers builds it for a LLaMA, over the pieces that are no special tokens.
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    prefixed = model.encode("a", out_type=str)[0].startswith(("▁", "<0x20>"))
    decoder = decoders.Sequence(chain + [decoders.Strip(" ", 1, 0)] * prefixed)
    special = {i for i in range(len(model)) if model.is_control(i) or model.is_unknown(i)}
    pieces = [[model.id_to_piece(i) for i in line["ids"] if i not in special] for line in ours]
    same(f"{folder.name}: their text", lines, [line["text"] for line in ours], [decoder.decode(line) for line in pieces])


def transformers(program, source, files, what, lines, configs, beside=None):
    from transformers import AutoTokenizer

    for config in configs:
        folder = with_config(source, files, config, beside)
        theirs = AutoTokenizer.from_pretrained(folder)
        ours = said(program, folder, lines)
        same(f"{what} {config}: transformers' ids", lines, [line["ids"] for line in ours], theirs(lines)["input_ids"])
        text = [theirs.decode(line["ids"], skip_special_tokens=True) for line in ours]
        same(f"{what} {config}: transformers' text", lines, [line["text"] for line in ours], text)


def main(program, texts, models, fixtures, data=None):
    lines = [json.loads(line) for line in pathlib.Path(texts).read_text().split("\n") if line]
    for folder in sorted(pathlib.Path(models).iterdir()):
        if folder.name.startswith("refused"):
            words = said(program, folder, [])
            good = isinstance(words, str) and "and BPE alone is read" in words and "save_pretrained" in words
            print(f"  {'ok   ' if good else 'SHORT'} {folder.name}: {' '.join(words.split())}")
            differing.extend([] if good else [folder.name])
        elif folder.is_dir():
            sentencepiece(program, folder, lines)
    for folder in filter(None, (fixtures, data)):
        for model in sorted(pathlib.Path(folder).rglob("tokenizer.model")):
            sentencepiece(program, model.parent, lines)
    # What the quick ring compares with is still what the package says.
    kept = [json.loads(line) for line in (pathlib.Path(fixtures) / "ids.jsonl").read_text().split("\n") if line]
    for name in ("llama", "rules"):
        model = spm.SentencePieceProcessor(model_file=f"{fixtures}/{name}/tokenizer.model")
        texts = [line["text"] for line in kept]
        same(f"{name}: the quick ring's ids", texts, [line[name] for line in kept], model.encode(texts))
    # Special tokens, BOS and EOS as transformers' LlamaTokenizer has them. It prefixes no text that begins with a space,
    # and passes over what begins with the prefix token's text, which lm-eval encodes without special tokens.
    usual = [line for line in lines if not line.startswith((" ", "▁", "<s>")) and line]
    config = {"tokenizer_class": "LlamaTokenizer"}
    flags = [dict(config, add_bos_token=bos, add_eos_token=eos, legacy=False) for bos in (True, False) for eos in (True, False)]
    transformers(program, pathlib.Path(models) / "llama", ["tokenizer.model"], "llama", usual, flags)
    # Tokens that old files add.
    spread = [line[: len(line) // 2] + "<pad>" + line[len(line) // 2 :] + "<|end|>" for line in usual[:2000]]
    beside = {"added_tokens.json": {"<pad>": 1500, "<|end|>": 1501}, "special_tokens_map.json": {"pad_token": "<pad>", "eos_token": "<|end|>"}}
    old = [dict(config, add_bos_token=True, legacy=False, pad_token="</s>")]
    transformers(program, pathlib.Path(models) / "llama", ["tokenizer.model"], "llama with old files", spread, old, beside)
    if data:
        stories = pathlib.Path(data) / "models/stories260K"
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        flags = [config] + [dict(config, add_bos_token=bos, add_eos_token=eos) for bos in (True, False) for eos in (True, False)]
        transformers(program, stories, ["tokenizer.json"], "stories260K's tokenizer.json", usual[:2000], flags)
    print(f"{len(differing)} comparisons fell short")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
