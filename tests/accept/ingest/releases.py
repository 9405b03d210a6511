"""The releases of docs/INGEST.md, as small as a dry run needs them:

  releases.py fill DATA HUB_ROOT       lays them out for hub_server.py, under their real names
  releases.py lines|runs INGEST_MD     the commands of the document, one a line; the runs that they fill
  releases.py told|check NAME JSON     what a dry run said of one; whether it is what the release is

Names, branches and files are those of the public repositories (their pages, read 2026-11); the bytes are those of a small model.
"""

import json
import re
import shutil
import sys
from pathlib import Path

PYTHIA = [0, *(2**n for n in range(10)), *range(1000, 144_000, 1000)]
REPRODUCED = {"OpenLLaMA-Reproduce-100.66B": 24_000, "OpenLLaMA-Reproduce-117.44B": 28_000}
AMBER_REPRODUCED = {"Amber-Reproduce-901.78B": 215_000, "Amber-Reproduce-998.24B": 238_000}
PREVIEW = "open_llama_7b_preview_200bt"

# By source: the steps that come, by name, and how many names are left out.
EXPECTED = {
    "amber": ({f"ckpt_{n:03}": n for n in range(359)} | {"main": 359}, 0),
    "openllama-reproduce": (REPRODUCED, 0),
    "amber-reproduce": (AMBER_REPRODUCED, 0),
    "open-llama": ({"open_llama_7b_step_5000": 5000, "open_llama_7b_step_100000": 100_000}, 0),
    "open-llama-preview": ({PREVIEW: 47_684}, 0),
    "pythia": ({f"step{n}": n for n in PYTHIA}, 0),
}


def fill(data, root):
    model, binary = data / "run/step-000016", data / "run_bin/step-000016"
    shards = [path.name for path in binary.glob("pytorch_model*")]
    for branch in [*(f"ckpt_{n:03}" for n in range(359)), "main"]:
        put(binary, root / "LLM360/Amber" / branch, ["config.json", *shards])
    for name in [*REPRODUCED, *AMBER_REPRODUCED]:
        put(model, root / "m-a-p" / name / "main", ["config.json", "model.safetensors"])
    tokenizer = root / "m-a-p/Amber-Reproduce-hkg_amber_hf/main"
    put(model, tokenizer, ["tokenizer.json", "tokenizer_config.json"])
    (tokenizer / "tokenizer.json").rename(tokenizer / "_tokenizer.json")
    for step in (5000, 100_000):
        put(model, root / f"openlm-research/open_llama_7b_step_{step}/main", ["config.json", "model.safetensors"])
    put(binary, root / "openlm-research/open_llama_7b/main", ["config.json", *shards, "tokenizer.json"])
    inner = root / "openlm-research" / PREVIEW / "main" / f"{PREVIEW}_transformers_weights"
    put(binary, inner, ["config.json", *shards])
    for branch in [*(f"step{n}" for n in PYTHIA), "main"]:
        put(model, root / "EleutherAI/pythia-70m" / branch, ["config.json", "model.safetensors", "tokenizer.json"])


def put(source, target, names):
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        (target / name).symlink_to(source / name) if name != "tokenizer.json" else shutil.copyfile(source / name, target / name)


def lines(document):
    """The commands of the section on releases, continued lines joined, the shell's quotes taken off."""
    section = document.read_text().split("\n## Releases\n", 1)[1].split("\n## ", 1)[0]
    joined = re.sub(r"\\\n\s*", " ", section)
    return [line.strip().replace("'", "") for line in joined.splitlines() if line.startswith("    fineline source add")]


def runs(document):
    return [re.search(r"--run (\S+)", line).group(1) for line in lines(document)]


def came(preview):
    return {step["name"]: step["step"] for step in preview["steps"] if step["state"] == "new"}


def check(name, preview):
    expected, n_left_out = EXPECTED[name]
    found = came(preview)
    for what in sorted(expected.keys() | found.keys()):
        if expected.get(what) != found.get(what):
            print(f"    {what}: is {found.get(what)}, should be {expected.get(what)}")
    left_out = [step for step in preview["steps"] if step["state"] != "new"]
    for step in left_out[: 0 if len(left_out) == n_left_out else 3]:
        print(f"    {step['name']}: {step['state']}, {step['message']}")
    return found == expected and len(left_out) == n_left_out and not preview["warnings"]


def main(verb, *arguments):
    match verb:
        case "fill":
            fill(*map(Path, arguments))
        case "lines" | "runs":
            print("\n".join({"lines": lines, "runs": runs}[verb](Path(arguments[0]))))
        case "told":
            steps = sorted(came(json.loads(Path(arguments[1]).read_text())).values())
            print(f"{len(steps)} steps, {steps[0]} to {steps[-1]}" if steps else "no steps")
        case "check":
            raise SystemExit(not check(arguments[0], json.loads(Path(arguments[1]).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
