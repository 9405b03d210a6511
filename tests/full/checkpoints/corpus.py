"""10,000 hard texts, the same at every call: what a tokenizer may stumble over, a JSON string a line.

python3 corpus.py FOLDER > TEXTS    FOLDER holds ordinary text (*.md)
"""

import json
import pathlib
import random
import sys
import unicodedata

SCRIPTS = [
    "The quick brown fox jumps over 13 lazy dogs, doesn't it?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю 42",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ١٢٣",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण १२३",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓",
    "我能吞下玻璃而不伤身体。天地玄黃,宇宙洪荒。",
    "いろはにほへと ちりぬるを カタカナ ﾊﾝｶｸ 𠮷野家",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல்",
    "Příliš žluťoučký kůň úpěl ďábelské ódy; ﬁn ﬂöte ĳs Ǆ ﬃ",
    "Ｆｕｌｌ　ｗｉｄｔｈ １２３ ½ ① ㎏ ℌ ™ … “quotes” ‘single’ – — ‑",
    "def f(x):\n\treturn {'a': x[0] ** 2}  # comment\r\n    pass",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "🧑‍🚀", "🫠", "1️⃣", "©️"]
ODD = [
    "\u2581", "\u3000", "\u00a0", "\u200b", "\u200d", "\ufeff", "\u2028", "\u0085", "\u00ad", "\ufffd", "\uffff",
    "\ue000", "\uf8ff", "\U000f0000", "\U0010ffff", "\u0301", "\u0345", "\u1e9b\u0323", "\u212b", "\u0344", "\ufdfa",
    "\u1100\u1161\u11a8", "ß", "İ", "ı", "ﷺ", "<0x41>", "<unk>", "<s>", "</s>", "<pad>", "<|x|>", "▁▁", "⁇", " ⁇ ",
]


def spaces(rng):
    return rng.choice([" ", "  ", "   ", " " * 7, " " * 16, " " * 33, "\t", "\t\t", "\n", "\n\n", "\r\n", " \t ", "\u3000", "\u00a0 ", ""])


def anything(rng):
    point = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)])
    return "?" if 0xD800 <= point < 0xE000 else chr(point)


def text(rng, ordinary):
    kind = rng.randrange(12)
    if kind == 0:
        return spaces(rng) + rng.choice(SCRIPTS) + spaces(rng)
    if kind == 1:
        return "".join(anything(rng) for _ in range(rng.randrange(1, 40)))
    if kind == 2:
        return "".join(chr(rng.randrange(0x20)) + rng.choice("ab ") for _ in range(rng.randrange(1, 12)))
    if kind == 3:
        return "".join(rng.choice("0123456789., ") for _ in range(rng.randrange(1, 30)))
    if kind == 4:
        return "".join(rng.choice(EMOJI) + spaces(rng) for _ in range(rng.randrange(1, 8)))
    if kind == 5:
        return "".join(rng.choice(ODD) + rng.choice(["", " ", "a", "é"]) for _ in range(rng.randrange(1, 10)))
    if kind == 6:
        return unicodedata.normalize(rng.choice(["NFD", "NFKD", "NFC"]), rng.choice(SCRIPTS))
    if kind == 7:
        return rng.choice(["a", "ab", "▁", "  a", "\x00", "00", "哈", "é", "the ", "in", "--"]) * rng.randrange(1, 60)
    if kind == 8:
        words = rng.choice(SCRIPTS).split(" ")
        return "".join(word + spaces(rng) for word in rng.sample(words, len(words)))
    if kind == 9:
        joined = "".join(SCRIPTS)
        return "".join(rng.choice(joined) for _ in range(rng.randrange(1, 80)))
    begin = rng.randrange(len(ordinary))
    return ordinary[begin : begin + rng.choice([20, 80, 300, 300, 1000])]


def texts(folder):
    rng = random.Random(20240401)
    ordinary = "".join(path.read_text() for path in sorted(pathlib.Path(folder).glob("*.md")))
    fixed = ["", " ", "  ", "\x00", "a\x00b", "▁", " ▁ ", "▁a", "<s>", "<s>Hello world</s>x", "a <unk> b", " <s> a", "\n", "a" * 3000]
    while len(fixed) < 10_000:
        fixed.append(text(rng, ordinary))
    return fixed


if __name__ == "__main__":
    for line in texts(sys.argv[1]):
        print(json.dumps(line))
