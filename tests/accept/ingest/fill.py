"""Lays a real run out as checkpoint releases are laid out in the world: fill.py DATA HUB_ROOT S3_ROOT

DATA has `run/` and `run_bin/` (a small real run, every checkpoint in a folder, some also as `.bin` shards).

HUB_ROOT, for hub_server.py:
  llm360/amber-small            a branch per checkpoint, shards differing in form and count, no tokenizer
      ckpt_000                  step 16, three .bin shards
      ckpt_001                  step 512, two .safetensors shards
      ckpt_002, main            step 3000, three .bin shards
      ckpt_003                  the weights of ckpt_002 under another README: a step published with wrong weights
      ckpt_004                  config and README alone: a step whose upload was never finished
  llm360/amber-small-tokenizer  the tokenizer of them all, under the name `_tokenizer.json`
  m-a-p/Small-Reproduce-*B      a repository per checkpoint, tokens in its name, whole with its tokenizer
S3_ROOT, for s3_put.py: all steps thrice, as `a/step-N/`, `b/global_stepN/` and `c/TOKENS/` (a plain integer, template
`{tokens}`; 2,048 tokens a step, as the run itself was trained).

eval_arc.json and eval_hellaswag.json are in lm-eval's results form. Those of steps 512 and 3000 have the numbers, the
shots and the limit that lm-eval measured (DATA/lm_eval/reference). Those of ckpt_000 were never measured: they say 25
and 10 shots without a limit, as full evaluations do, and the accuracy of chance.
"""

import json
import shutil
import sys
from pathlib import Path

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CONFIG = ("config.json", "generation_config.json")
RUN_TOKENS_A_STEP = 2048
# The paper's release: 4 Mi tokens a step. The steps are its own, the weights those of a step of the run.
NAMED_TOKENS_A_STEP = 4_194_304
NAMED_STEPS = {24_000: 256, 28_000: 1000, 52_000: 3000}
TASKS = {"eval_arc.json": ("arc_challenge", 25), "eval_hellaswag.json": ("hellaswag", 10)}


def main(data, hub, s3):
    fill_amber(data, hub / "llm360/amber-small")
    fill_tokenizer(data, hub / "llm360/amber-small-tokenizer/main")
    for step, run_step in NAMED_STEPS.items():
        branch = hub / f"m-a-p/Small-Reproduce-{billions(step * NAMED_TOKENS_A_STEP)}B/main"
        copy(run_folder(data, run_step), branch, (*CONFIG, "model.safetensors", *TOKENIZER))
        readme(branch, f"{step * NAMED_TOKENS_A_STEP:,} tokens")
    for folder in sorted((data / "run").glob("step-*")):
        step = int(folder.name.removeprefix("step-"))
        for place in (f"a/step-{step}", f"b/global_step{step}", f"c/{step * RUN_TOKENS_A_STEP}"):
            copy(folder, s3 / place, [path.name for path in folder.iterdir()])


def fill_amber(data, repo):
    for branch, step in {"ckpt_000": 16, "ckpt_001": 512, "ckpt_002": 3000, "ckpt_003": 3000, "main": 3000}.items():
        if branch == "ckpt_001":
            copy(run_folder(data, step), repo / branch, CONFIG)
            reshard(run_folder(data, step) / "model.safetensors", repo / branch, 2)
        else:
            folder = run_folder(data, step, "run_bin")
            copy(folder, repo / branch, [*CONFIG, *(path.name for path in folder.glob("pytorch_model*"))])
        for file, (task, shots) in TASKS.items():
            measured = data / f"lm_eval/reference/run-step-{step:06}/results_all.json"
            results = measured_results(measured, task) if measured.is_file() else results_of_chance(task, shots)
            (repo / branch / file).write_text(json.dumps(results, indent=2) + "\n")
        readme(repo / branch, "the last checkpoint" if branch == "main" else branch)
    # What tells main from ckpt_002 on the Hub is its name alone.
    shutil.copyfile(repo / "ckpt_002/README.md", repo / "main/README.md")
    copy(run_folder(data, 3000), repo / "ckpt_004", CONFIG)
    readme(repo / "ckpt_004", "ckpt_004")


def fill_tokenizer(data, branch):
    copy(run_folder(data, 3000), branch, TOKENIZER)
    (branch / "tokenizer.json").rename(branch / "_tokenizer.json")
    readme(branch, "the tokenizer")


def measured_results(path, task):
    """One task of an lm-eval results file in the older form, in which releases ship it."""
    whole = json.loads(path.read_text())
    name = f"local_{task}"
    scores = (key.partition(",")[::2] + (value,) for key, value in whole["results"][name].items())
    results = {metric: value for metric, filter, value in scores if filter == "none"}
    config = {key: whole["config"][key] for key in ("model", "limit")} | {"num_fewshot": whole["n-shot"][name]}
    return {"results": {task: results}, "versions": {task: whole["versions"][name]}, "config": config}


def results_of_chance(task, shots):
    results = {"acc": 0.25, "acc_stderr": 0.0125, "acc_norm": 0.25, "acc_norm_stderr": 0.0125}
    config = {"model": "hf-causal", "num_fewshot": shots, "limit": None}
    return {"results": {task: results}, "versions": {task: 0}, "config": config}


def reshard(path, into, n_shards):
    """The tensors of a safetensors file as several files and their index, each with a like share of the bytes."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    metadata = header.pop("__metadata__", {"format": "pt"})
    total = max(tensor["data_offsets"][1] for tensor in header.values())
    shards = [{} for _ in range(n_shards)]
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shards[min(tensor["data_offsets"][0] * n_shards // total, n_shards - 1)][name] = tensor
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{n_shards:05}.safetensors"
        values, rows = b"", {"__metadata__": metadata}
        for name, tensor in shard.items():
            first, end = tensor["data_offsets"]
            rows[name] = {**tensor, "data_offsets": [len(values), len(values) + end - first]}
            values += raw[begin + first : begin + end]
            weight_map[name] = file
        text = json.dumps(rows, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (into / file).write_bytes(len(text).to_bytes(8, "little") + text + values)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (into / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def run_folder(data, step, form="run"):
    return data / form / f"step-{step:06}"


def billions(tokens):
    return f"{tokens / 1e9:.2f}".rstrip("0").rstrip(".")


def copy(source, target, names):
    """Copies, not links: tests alter what lies here, and the data is read-only."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)


def readme(branch, text):
    (branch / "README.md").write_text(f"---\nlicense: apache-2.0\n---\nA small LLaMA: {text}.\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__.splitlines()[0])
    main(*map(Path, sys.argv[1:]))
