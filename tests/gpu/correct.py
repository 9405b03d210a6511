"""The device's answers against the CPU's in float32 by the same program, and packed ones against single ones."""

import json

from pairs import pairs
from part import AGAINST_ANOTHER, AGAINST_ITSELF, lines, main, run

# A greedy flag may differ where the model's own two largest logits are no further apart.
OPEN_GAP = 1e-5
# In bfloat16 a number has 8 bits: a log-probability is off by some hundredths, and a decision of equal choices falls either way.
BFLOAT16_PER_CHARACTER = 0.05
BFLOAT16_DECISIONS = 0.85


def answers(told, model, asked, *options):
    stdin = "".join(json.dumps([context, continuation]) + "\n" for _, context, continuation in asked)
    ran = run([told.measure, "answers", model, *options], stdin=stdin)
    return [tuple(answer) for answer in lines(ran.stdout)], ran.seconds


def gaps(told, model, asked):
    stdin = "".join(json.dumps([context, continuation]) + "\n" for _, context, continuation in asked)
    return [float(line) for line in run([told.measure, "gaps", model], stdin=stdin).stdout.split()]


def decisions(asked, found):
    """The best of each group."""
    best = {}
    for (group, _, _), (log_likelihood, _) in zip(asked, found, strict=True):
        if group:
            best.setdefault(group, []).append(log_likelihood)
    return {group: values.index(max(values)) for group, values in best.items()}


def compared(part, what, reference, found, tolerance, gap):
    """Sums within the tolerance, flags equal where the model leaves no doubt."""
    beyond = [(a, b) for (a, _), (b, _) in zip(reference, found, strict=True) if not abs(a - b) <= tolerance * (1 + abs(a))]
    largest = max(abs(a - b) for (a, _), (b, _) in zip(reference, found))
    part.figure(f"{what}: largest difference", largest)
    part.check(f"{what}: {len(found) - len(beyond)} of {len(found)} sums within {tolerance:g} absolute and relative", not beyond)
    flags = [i for i, ((_, a), (_, b)) in enumerate(zip(reference, found)) if a != b]
    closed = [i for i in flags if gap[i] > OPEN_GAP]
    part.check(f"{what}: greedy flags equal but for {len(flags)}, of which the logits leave {len(flags) - len(closed)} open", not closed)


def correct(told, part):
    asked = pairs(told.data, told.size(48, 6))
    # Batches of several requests, of one request's parts, and one of all.
    sizes = told.size(["128", "2048", "16384"], ["64", "1024"])
    tables = [] if told.on_a_card else ["--by-tables"]
    for name, model in told.small_models().items():
        reference, _ = answers(told, model, asked)
        gap = gaps(told, model, asked)
        greedy = sum(flag for _, flag in reference)
        part.figure(f"{name}: requests, greedy ones, least gap of logits", [len(reference), greedy, min(gap)])
        part.check(f"{name}: some are greedy and some are not", 0 < greedy < len(reference))
        packed = {}
        for size in sizes:
            packed[size], _ = answers(told, model, asked, *told.how("float32"), "--batch-tokens", size, *tables)
            compared(part, f"{name}, float32, batches of {size}", reference, packed[size], AGAINST_ANOTHER, gap)
        alone, _ = answers(told, model, asked, *told.how("float32"), "--alone", *tables)
        compared(part, f"{name}, float32, alone against packed", alone, packed[sizes[-1]], AGAINST_ITSELF, gap)
        half, _ = answers(told, model, asked, *told.how("bfloat16"), *tables)
        half_alone, _ = answers(told, model, asked, *told.how("bfloat16"), "--alone", *tables)
        in_bfloat16(part, f"{name}, bfloat16 against float32", asked, reference, half)
        in_bfloat16(part, f"{name}, bfloat16, alone against packed", asked, half_alone, half)


def in_bfloat16(part, what, asked, reference, found):
    off = [abs(a - b) / len(asked[i][2]) for i, ((a, _), (b, _)) in enumerate(zip(reference, found, strict=True))]
    mean = sum(off) / len(off)
    theirs, ours = decisions(asked, reference), decisions(asked, found)
    equal = sum(theirs[group] == ours[group] for group in theirs)
    part.figure(f"{what}: mean difference a character, equal decisions, of", [mean, equal, len(theirs)])
    part.check(f"{what}: off by {mean:.1e} a character in the mean, less than {BFLOAT16_PER_CHARACTER}", mean < BFLOAT16_PER_CHARACTER)
    part.check(f"{what}: {equal} of {len(theirs)} decisions are equal, {BFLOAT16_DECISIONS:.0%} at least",
               equal >= BFLOAT16_DECISIONS * len(theirs))


if __name__ == "__main__":
    main(correct)
