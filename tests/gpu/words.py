"""A tokenizer of as many pieces as a LLaMA's, made from real texts, so that texts have real lengths in tokens: `words.py LIKE OUT N TEXT...`
LIKE is a folder with a LLaMA's tokenizer.json, whose rules it keeps."""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers


def texts(paths):
    for path in paths:
        for line in open(path, encoding="utf-8"):
            yield line.replace("\\n", "\n")


def main():
    like, out, n, *paths = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    rules = json.loads((like / "tokenizer.json").read_text(encoding="utf-8"))
    first = sorted(rules["model"]["vocab"].items(), key=lambda item: item[1])[: 3 + 256]
    assert [token for token, _ in first][3:5] == ["<0x00>", "<0x01>"], first[:5]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = normalizers.Replace("\n", " ")
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=n, special_tokens=[token for token, _ in first], show_progress=False, max_token_length=16)
    trained.train_from_iterator(texts(paths), trainer)
    model = json.loads(trained.to_str())["model"]
    rules["model"]["vocab"], rules["model"]["merges"] = model["vocab"], model["merges"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")
    (out / "special_tokens_map.json").write_bytes((like / "special_tokens_map.json").read_bytes())
    config = json.loads((like / "tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 2048}, indent=1))
    print(f"{len(model['vocab'])} pieces")


if __name__ == "__main__":
    main()
