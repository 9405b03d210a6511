"""Whether two tellings of a registry are the same, but for what a start adds: same.py BEFORE AFTER

Each start of a server on a new folder makes a token of its own; the tokens from before have to be there.
"""

import json
import sys


def values(path):
    decoder, text, at = json.JSONDecoder(parse_float=str), open(path).read(), 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield value
        while at < len(text) and text[at].isspace():
            at += 1


before, after = (list(values(path)) for path in sys.argv[1:])
differences = 0
for n, (old, new) in enumerate(zip(before, after, strict=True)):
    if isinstance(old, list) and old and "scopes" in old[0]:
        ids = {token["id"] for token in old}
        new = [token for token in new if token["id"] in ids]
    if old != new:
        differences += 1
        print(f"    part {n} differs: {str(old)[:200]} … {str(new)[:200]}")
print(f"    {len(before)} answers of the API compared, {sum(len(str(value)) for value in before)} characters")
sys.exit(differences > 0)
