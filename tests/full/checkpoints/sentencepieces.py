"""Trains SentencePiece models in the ways that LLaMA-like models are released, on ordinary text and a few scripts.

python3 sentencepieces.py FOLDER OUT             FOLDER holds the text (*.md); OUT/<name>/tokenizer.model
python3 sentencepieces.py --fixtures FOLDER OUT  the two small ones of evaluator/tests/sentencepiece, with their ids of some texts
"""

import io
import json
import pathlib
import sys

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

from corpus import SCRIPTS, texts

LLAMA = dict(
    model_type="bpe", vocab_size=1500, byte_fallback=True, split_digits=True, character_coverage=0.9995, minloglevel=2,
    normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
)
NFKC = dict(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)
SYMBOLS = dict(user_defined_symbols=["<|x|>", "    ", "the", "é"], control_symbols=["<pad>"])
MODELS = {
    "llama": {},
    "openllama": dict(NFKC, allow_whitespace_only_pieces=False),
    "no_prefix": dict(add_dummy_prefix=False),
    "no_prefix_nfkc": dict(NFKC, add_dummy_prefix=False),
    "nfkc_keeps_spaces": dict(NFKC, remove_extra_whitespaces=False),
    "identity_removes_spaces": dict(remove_extra_whitespaces=True),
    "folded": dict(NFKC, normalization_rule_name="nmt_nfkc_cf"),
    "suffix": dict(NFKC, treat_whitespace_as_suffix=True),
    "symbols": dict(SYMBOLS),
    "symbols_nfkc": dict(NFKC, **SYMBOLS),
    "no_bytes": dict(byte_fallback=False),
    "wide": dict(split_by_unicode_script=False, split_by_whitespace=False, split_digits=False),
    "rules": dict(remove_extra_whitespaces=True),
}


# "A" becomes "aa", "ss" becomes "ß", "%" a space, "#" nothing, "the " two spaces.
RULES = "41\t61 61\n73 73\tDF\n25\t20\n23\t\n74 68 65 20\t20 20\n"


def ordinary(folder):
    lines = [line for path in sorted(pathlib.Path(folder).glob("*.md")) for line in path.read_text().split("\n")]
    return lines + SCRIPTS * 20


def train_one(lines, out, name, options):
    options = dict(LLAMA, **options)
    if name == "rules":
        rules = out / "rules.tsv"
        rules.write_text(RULES)
        del options["normalization_rule_name"]
        options["normalization_rule_tsv"] = str(rules)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
    write(out / name, model.getvalue())


def train(folder, out):
    lines = ordinary(folder)
    for name, options in MODELS.items():
        train_one(lines, out, name, options)
    change(out, "unused", set_unused)
    change(out, "unescaped", lambda proto: setattr(proto.normalizer_spec, "escape_whitespaces", False))
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=1500, byte_fallback=True, minloglevel=2
    )
    write(out / "refused_unigram", model.getvalue())


def set_unused(proto):
    for piece in proto.pieces[270:1000:3]:
        piece.type = piece.UNUSED


def change(out, name, how):
    proto = pb.ModelProto.FromString((out / "llama/tokenizer.model").read_bytes())
    how(proto)
    write(out / name, proto.SerializeToString())


def write(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)


def fixtures(folder, out):
    small = dict(vocab_size=700, character_coverage=0.98)
    for name, options in (("llama", small), ("rules", dict(small, remove_extra_whitespaces=True, **SYMBOLS))):
        train_one(ordinary(folder), out, name, options)
    (out / "rules.tsv").unlink()
    models = {name: spm.SentencePieceProcessor(model_file=f"{out}/{name}/tokenizer.model") for name in ("llama", "rules")}
    with (out / "ids.jsonl").open("w") as file:
        for text in texts(folder)[:200]:
            if len(text) < 120:
                ids = {name: model.encode(text) for name, model in models.items()}
                file.write(json.dumps(dict(text=text, **ids), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--fixtures":
        fixtures(sys.argv[2], pathlib.Path(sys.argv[3]))
    else:
        train(sys.argv[1], pathlib.Path(sys.argv[2]))
