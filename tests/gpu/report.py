"""What the parts found, as text: the table at the end of a run, and docs/benchmarks/gpu.md: `report.py PAGE TINY_OUT [OUT]` writes the
page from the results of a run on the CPU and, where there was a card, from those of one on it."""

import json
import sys
from pathlib import Path

from work import weights

AMBER = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "vocab_size": 32000,
}
# NVIDIA's data sheets, SXM: dense bfloat16 FLOP/s, bytes/s, bytes.
CARDS = {"H100": (989e12, 3.35e12, 80e9), "H200": (989e12, 4.8e12, 141e9)}


def results(out):
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


def row(name, found):
    if not found:
        return f"| {name} | not run | | | |"
    checks = found["checks"]
    held = f"{sum(check['ok'] for check in checks)} of {len(checks)}"
    return f"| {name} | {found['state']} | {found['seconds']:.0f} | {held} | {'; '.join(found['needs_a_card'])} |"


def parts_table(found, names):
    return "\n".join(["| part | state | s | checks that hold | needs a card |", "|---|---|---|---|---|"] + [row(n, found.get(n)) for n in names])


def shown(value):
    if isinstance(value, float):
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if abs(value) >= size:
                return f"{value / size:.1f} {unit}"
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return str(value).replace("|", "/")


def figures(found):
    rows = [f"| {name} | {shown(value)} |" for name, value in found["figures"].items()]
    return "\n".join(["| figure | |", "|---|---|", *rows])


def table(out, names):
    """(the text of a run's report, parts that were run and did not pass)"""
    found = results(out)
    failed = [name for name in names if name in found and found[name]["state"] != "passed"]
    text = [parts_table(found, names), ""]
    for name in names:
        for check in found.get(name, {}).get("checks", []):
            if not check["ok"]:
                text.append(f"SHORT {name}: {check['text']}")
        if found.get(name, {}).get("error"):
            text.append(f"BROKEN {name}: {found[name]['error'][:2000]}")
    for name in names:
        if found.get(name, {}).get("figures"):
            text += ["", f"{name}, {found[name]['date']}, {where(found[name])}:", "", figures(found[name])]
    return "\n".join(text) + "\n", failed


def where(found):
    place = f"{found['card']}, driver {found['driver']}" if found["card"] else found["processor"]
    return place + (", tiny shapes" if found["tiny"] else "")


def floors():
    products, head, parameters = weights(AMBER)
    per_token = 2 * products
    rows = []
    for name, (flops, bandwidth, _) in CARDS.items():
        read_s = 2 * (products + head) / bandwidth
        rows.append(
            f"| {name} | {flops / 1e12:.0f} | {bandwidth / 1e12:.2f} | {per_token / flops * 1e6:.1f} | {flops / per_token:,.0f} | "
            f"{read_s * 1e3:.1f} | {flops / bandwidth:.0f} | {8192 * per_token / flops * 1e3:.0f} |"
        )
    return products, head, parameters, "\n".join(rows)


def page(tiny, card, names, minutes):
    products, head, parameters, rows = floors()
    attention = 4 * 4096 * 32
    here = next(iter(tiny.values()))
    measured = MISSING
    if card:
        first = next(iter(card.values()))
        measured = "\n\n".join(
            [f"{where(first)}; {first['processor']}. The pack was of `{first['pack']['commit']}`.", parts_table(card, names)]
            + [f"### {name}\n\n{figures(card[name])}" for name in names if name in card]
        )
    return PAGE.format(
        measured=measured, minutes=minutes, rows=rows, products=products / 1e9, head=head / 1e9, parameters=parameters / 1e9,
        gflop=2 * products / 1e9, head_gflop=2 * head / 1e9, attention_mflop=attention / 1e6,
        at_512=attention * 512 / (2 * products), at_2048=attention * 1024 / (2 * products),
        tiny=parts_table(tiny, names), date=here["date"], machine=here["processor"],
    )


MISSING = """**There was no card.** What is missing is therefore everything that is measured: whether answers on a card are those of the CPU and
of lm-eval, tokens a second at seven billion parameters and their share of the card's arithmetic, the time beside lm-eval's `hf` on the
same card, what happens where memory gets scarce, `cuda:auto`, and the times of a whole step from push to scores. None of these is
claimed anywhere."""

PAGE = """# Evaluation on a card: how fast, how right, and how far from the floor

Written by `tests/gpu.sh report`.

## Measured

{measured}

How to get the figures: a machine with one of NVIDIA's cards from Ampere on, driver 580 or later, CUDA 13's cuBLAS and cuRAND, and Python
3.12 with PyTorch and transformers; 50 GB of disk and 32 GiB of memory for the checkpoints of seven billion parameters. It needs neither a
network nor Rust. Here, and then there:

```sh
tests/gpu.sh pack pack                   # programs, tasks, small models, a tokenizer, lm-eval's wheels: less than 64 MiB
tests/gpu.sh run pack results            # there: all parts, {minutes:.0f} minutes; those whose result is in `results` are not done again
tests/gpu.sh run pack results start correct lmeval    # or some of them
tests/gpu.sh report docs/benchmarks/gpu.md TINY-RESULTS results
```

Weights are generated (`measure generate`): seven billion numbers with a standard deviation of 0.02 in the shapes, names and config.json of
LLM360/Amber and of OpenLLaMA-7B. How long a model takes does not depend on what it has learned; that its answers are right is
held against real small models (`correct`, `lmeval`).

## The floor

A token of Amber's shape goes through {products:.3f} G weights of the layers' products ({parameters:.3f} G parameters in all), with 2 FLOP for each:
**{gflop:.2f} GFLOP**. Where a logit is wanted the output matrix is {head_gflop:.2f} GFLOP more. Attention is 4 FLOP x heads x head width x layers for each token
that a token looks at, {attention_mflop:.2f} MFLOP: behind 512 tokens {at_512:.1%} of the layers' work, and {at_2048:.1%} in the mean of a text of 2,048.

    time >= max( FLOP / FLOP a second, bytes / bytes a second )
    FLOP  = 2 x weights of the layers x tokens computed + 2 x weights of the output matrix x logits wanted
          + 4 x tokens looked at x heads x head width x layers
    bytes = 2 x weights x batches

*Utilisation* is that FLOP over the time and over what the card's own product of two 8192 x 8192 bfloat16 matrices reaches, measured in
the same run; *by 2PN* counts 2 FLOP for every parameter and token instead, as is usual elsewhere, embedding and output
matrix included, whether a logit was wanted or not. By the data sheets (SXM, dense bfloat16; a product reaches some four fifths of it):

| card | TFLOP/s | TB/s | a token, µs | tokens/s at most | weights read once, ms | tokens of a batch that hide the reading | a batch of 8,192, ms |
|---|---|---|---|---|---|---|---|
{rows}

So a batch of 8,192 tokens is bound by arithmetic on either card, more than 27 times over, and more memory bandwidth is worth nothing to it; a forward
of fewer than some 300 tokens (a generated token of a few texts, the rest of a small task) is bound by reading the weights.

## The script runs

The same parts on the CPU with shapes of a few megabytes (`tests/full/gpu.sh`), so that they are known to work before a card is at hand;
{date}, {machine}. What makes no sense without a card is named and counts as nothing. In place of a card the CPU computes by a card's
tables (`correct`, `lmeval`).

{tiny}
"""


def main():
    from run import PARTS

    names = [name for name, _, _ in PARTS]
    path, tiny, *card = map(Path, sys.argv[1:])
    path.write_text(page(results(tiny), results(card[0]) if card else {}, names, sum(usual for *_, usual in PARTS) / 60), encoding="utf-8")


if __name__ == "__main__":
    main()
