"""Many loads in one process: memory must not grow."""

from part import lines, main, run

# What may come to be there beyond the first loads: an allocator's fragments, and on a card a library's own buffers. The words that
# `tokenizers` would keep of each tokenizer were 57 KB a load: 10 MB.
RESIDENT_BYTES = 8 << 20
TAKEN_BYTES = 64 << 20


def loads(told, part):
    times, looks = 200, [20, 100, 200]
    models = [*told.small_models().values(), told.model("run/step-000512")]
    ran = run([told.measure, "loads", *models, *told.how("bfloat16"), "--times", times, "--looks", ",".join(map(str, looks))])
    seen = lines(ran.stdout)
    part.figure("seconds a load", ran.seconds / times)
    for look in seen:
        part.figure(f"after {look['n']}", {name: value for name, value in look.items() if name != "n"})
    first, last = seen[0], seen[-1]
    grown = last["resident_bytes"] - first["resident_bytes"]
    part.check(f"{last['n'] - first['n']} loads more: {grown / 1e6:+.1f} MB resident, {RESIDENT_BYTES / 1e6:.0f} at most",
               grown <= RESIDENT_BYTES and [look["n"] for look in seen] == looks)
    if told.on_a_card:
        grown = last["taken_bytes"] - first["taken_bytes"]
        part.check(f"the card's memory: {grown / 1e6:+.1f} MB, {TAKEN_BYTES / 1e6:.0f} at most", grown <= TAKEN_BYTES)
    else:
        part.wants_a_card("what is taken of its memory")


if __name__ == "__main__":
    main(loads)
