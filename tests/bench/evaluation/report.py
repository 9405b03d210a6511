"""Puts what `measure` and `theirs.py` printed into docs/benchmarks/evaluation.md: `report.py LOGS MODEL_CONFIG OUT`. Exits with 1
where the answers differ by more than rounding, or a task took longer than with lm-eval."""

import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

# What a log-likelihood may differ by, absolute and relative, between two orders of the same sums in float32.
TOLERANCE = 1e-4
CLASSES = {
    "local_mmlu_anatomy": "one token each, one head of five shots",
    "local_hellaswag": "four long endings",
    "local_arc_easy": "four or five short answers",
    "local_piqa": "two long answers",
    "local_winogrande": "two contexts, one ending",
    "local_boolq": "two words after a long context",
    "local_copa": "two short endings",
    "local_lambada_openai": "one ending",
    "local_val_rolling": "whole texts",
    "local_gsm8k": "generated after five shots",
}


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def linear_flops(config):
    """Of one token through the layers' linear products: two for each weight."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = (config[f"num_{kind}_heads"] * head_dim for kind in ("attention", "key_value"))
    return 2 * config["num_hidden_layers"] * (2 * hidden * q + 2 * hidden * kv + 3 * hidden * inner)


def responses(path):
    """Log-likelihoods with greedy flags where there are any, or texts, by document."""
    found = {}
    for sample in lines(path):
        # Each filter has the same ones.
        found[sample["doc_id"]] = [flat(response[0] if len(response) == 1 else response) for response in sample["resps"]]
    return found


def flat(response):
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    return response


def difference(ours, theirs):
    """(compared, unequal greedy flags or texts, the largest difference of log-likelihoods beyond what is allowed or 0)"""
    n, n_unequal, largest, is_breach = 0, 0, 0.0, False
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    for doc, mine in ours.items():
        assert len(mine) == len(theirs[doc]), doc
        for a, b in zip(mine, theirs[doc]):
            n += 1
            if isinstance(a, str) and not is_number(a):
                n_unequal += a != b
                continue
            (a, greedy_a), (b, greedy_b) = ((float(x[0]), str(x[1])) if isinstance(x, list) else (float(x), "") for x in (a, b))
            n_unequal += greedy_a != greedy_b
            largest = max(largest, abs(a - b))
            is_breach |= abs(a - b) > TOLERANCE * (1 + abs(b))
    return n, n_unequal, largest, is_breach


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def main():
    logs, config, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    rates = [lines(logs / f"peak-{when}.json")[0] for when in ("before", "after")]
    peaks = [rate["flops_per_s"] for rate in rates]
    peak, flops = max(peaks), linear_flops(config)
    head_flops = 2 * config["hidden_size"] * config["vocab_size"]
    ours, ours16 = ({row["task"]: row for row in lines(logs / f"ours-{dtype}.json")} for dtype in ("float32", "bfloat16"))
    sizes = sorted(int(path.stem.split("-")[1]) for path in logs.glob("theirs-*.json"))
    theirs = {size: {row["task"]: row for row in lines(logs / f"theirs-{size}.json")} for size in sizes}
    (long,) = lines(logs / "long.json")
    rows, failed = [], []
    for task, mine in ours.items():
        best = min(sizes, key=lambda size: theirs[size][task]["seconds"])
        other = theirs[best][task]
        n, n_unequal, largest, is_breach = difference(
            responses(logs / "ours-float32" / f"{task}.jsonl"), responses(logs / f"theirs-{best}" / f"{task}.jsonl")
        )
        speedup, work = other["seconds"] / mine["seconds"], other["n_computed"] / mine["n_computed"]
        floor = mine["n_computed"] * flops / peak
        rows.append(
            f"| {task.removeprefix('local_')} | {CLASSES[task]} | {other['n_computed']} | {mine['n_asked']} | "
            f"{mine['n_computed']} | {work:.2f} | {other['seconds']:.2f} ({best}) | {mine['seconds']:.2f} | **{speedup:.2f}** | "
            f"{speedup / work:.2f} | {mine['seconds'] / floor:.2f} | {ours16[task]['seconds'] / mine['seconds']:.2f} | "
            f"{n} | {n_unequal} | {largest:.1e} |"
        )
        if is_breach or n_unequal:
            failed.append(f"{task}: {n_unequal} of {n} answers differ, the furthest by {largest:.2e}")
        if speedup < 1:
            failed.append(f"{task}: {speedup:.2f} times as fast as lm-eval")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = subprocess.run(
        [sys.executable, "-c", "import torch,transformers,lm_eval;print(torch.__version__,transformers.__version__)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()
    mean = statistics.geometric_mean(
        min(theirs[size][task]["seconds"] for size in sizes) / mine["seconds"] for task, mine in ours.items()
    )
    out.write_text(
        PAGE.format(
            when=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            machine=f"{os.cpu_count()} cores of {cpu or platform.machine()}",
            torch=versions[0], transformers=versions[1],
            sizes=", ".join(map(str, sizes)),
            limit=os.environ.get("LIMIT", "24"), generated=os.environ.get("GENERATED", "4"),
            peak=peak / 1e9, peaks=" and ".join(f"{p / 1e9:.0f}" for p in peaks),
            silence=max(row["longest_silence_s"] for row in ours.values()),
            long_silence=long["longest_silence_s"], n_long=long["n_asked"], window=config["max_position_embeddings"],
            layers=max(rate["layer_flops_per_s"] for rate in rates) / 1e9,
            head=max(rate["head_flops_per_s"] for rate in rates) / 1e9,
            head_mflops=head_flops / 1e6, head_share=head_flops / flops,
            mflops=flops / 1e6, rows="\n".join(rows), mean=mean,
        ),
        encoding="utf-8",
    )
    print("\n".join(rows), *failed, sep="\n")
    sys.exit(bool(failed))


PAGE = """# Evaluation: how fast, beside lm-eval and beside the floor

Written by `LIMIT={limit} GENERATED={generated} tests/bench/evaluation.sh MODEL`. {when}; {machine}; lm-eval 0.4.13 `hf` with torch {torch} and transformers {transformers} on
all cores in float32.

SmolLM2-135M, the same task files and the first {limit} documents of each ({generated} where texts are generated) on both sides. Timed are the requests alone: with lm-eval the seconds inside of
`loglikelihood` and its like, tokenizing included; with Fineline all of a task's run, with prompts, metrics and the sample log.
Loading and start are on neither side. lm-eval ran with batches of {sizes}; each row has its best (the size stands behind the
seconds).

N are the tokens that go through lm-eval's forward, padding included; *asked* are those of all inputs that differ, and M those that
Fineline computes: no padding, and a beginning that inputs share once. N/M is what the smaller work is worth; what *of N/M* is
beyond 1 is the faster forward. *Floor* is the time of the layers' linear products of M tokens ({mflops:.0f} MFLOP each) at the
{peak:.0f} GFLOP/s that a product of 2048 x 2048 float32 matrices reached on the same cores ({peaks} before and after). *bf16* is
the time with bfloat16 weights over that with float32.

| task | requests | N | asked | M | N/M | lm-eval, s | Fineline, s | speedup | of N/M | times the floor | bf16 | compared | unequal | largest difference |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
{rows}

Geometric mean of the speedups: {mean:.2f}. *Compared* are answers (log-likelihood with greedy flag, or text) of lm-eval's best run
and of Fineline's in float32; *unequal* are flags or texts. Whether to go on was asked every {silence:.2f} s at the longest, and every
{long_silence:.2f} s for a text of {n_long} tokens in windows of {window}: that is how long a cancelled evaluation computes on.

## What lies between the time and the floor

The layers' own products, which are smaller than the one that the floor is of, reach {layers:.0f} GFLOP/s with 2,048 rows; the one that
gives logits {head:.0f}.

- **Whole texts** want the logits of every position: {head_mflops:.0f} MFLOP each, {head_share:.2f} of the layers', and attention's products
  are another 0.08 at 500 tokens. So 1.35 times the floor is work that has to be done, and that is what it takes: products were 66 % of
  the time (of 2.03 times the floor), the exponentials of 49,152 logits a position and of attention's weights 15 %, SiLU, norms and rotary
  embeddings 7 %; the rest is packing, copies and memory (`perf record` of 24 texts; 2026-11-27, two cores of a Xeon, AVX-512).
- **Generated texts** take a forward a token, in which the rows are the texts in the making, two here: each reads all weights (0.54 GB)
  from memory, which bounds it and no product does. More documents at once share that.
- **Few tokens** (copa, winogrande): the forward of a batch of 150 rows does not fill the cores, and every layer's operations wait for
  each other some two hundred times.
"""

main()
