"""Logits of small models in every container that PyTorch and transformers write, against transformers' own; and lm-eval's rule
for the longest input. A line a comparison, exit 1 when one differs.

python3 compare_logits.py PROGRAM REFERENCE    PROGRAM is the evaluator's example `logits`, REFERENCE evaluator/tests/shapes.json
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file

import shapes

short = []


def near(what, ours, theirs):
    """lm-eval's tolerance for a log-likelihood, on each logit: 1e-4 absolute and relative."""
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    worst = (ours - theirs).abs().max().item() if ours.shape == theirs.shape else float("inf")
    good = ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    print(f"  {'ok   ' if good else 'SHORT'} {what}: logits differ by at most {worst:.1e}")
    short.extend([] if good else [what])


def said(program, folder, ids):
    ran = subprocess.run([program, folder, *map(str, ids)], capture_output=True, text=True)
    if ran.returncode:
        print(ran.stderr)
        return []
    return json.loads(ran.stdout)


def folder(config):
    made = pathlib.Path(tempfile.mkdtemp())
    (made / "config.json").write_text(json.dumps(config))
    return made


def sharded(tensors, n):
    """Tensors in n shards, in the order of their names."""
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[i::n]} for i in range(n)]


def containers(program, config, ids):
    """One model as it may have been saved; what is narrower is compared with the narrower model."""
    made = shapes.model(config)
    state = made.state_dict()
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.arange(8.0) for i in range(2)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        narrow = {name: tensor.to(dtype) for name, tensor in state.items()}
        made.load_state_dict({name: tensor.float() for name, tensor in narrow.items()})
        theirs = shapes.logits(made, ids)
        name = str(dtype).removeprefix("torch.")
        one = folder(config)
        torch.save(narrow, one / "pytorch_model.bin")
        near(f"one .bin, {name}", said(program, one, ids), theirs)
        # Views of one storage, and weights that are no longer of row-major order.
        views = folder(config)
        turned = {key: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for key, tensor in narrow.items()}
        torch.save(turned, views / "pytorch_model.bin")
        near(f"one .bin of transposed views, {name}", said(program, views, ids), theirs)
        for end, save in ((".bin", torch.save), (".safetensors", lambda tensors, path: save_file(tensors, path, {"format": "pt"}))):
            many = folder(config)
            stem, weight_map = "pytorch_model" if end == ".bin" else "model", {}
            # Old checkpoints keep buffers: float32 beside float16, and integers.
            kept = narrow | buffers | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(8)}
            for i, tensors in enumerate(sharded(kept, 3), 1):
                file = f"{stem}-{i:05}-of-00003{end}"
                save({key: tensor.contiguous() for key, tensor in tensors.items()}, many / file)
                weight_map.update({key: file for key in tensors})
            (many / f"{stem}{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
            near(f"three {end} with buffers, {name}", said(program, many, ids), theirs)


def longest_inputs(program, reference):
    """The longest input that lm-eval takes from a config is the longest that the program takes."""
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    class Tokenizer:
        model_max_length = 77

    fields = reference["shapes"][0]["config"]
    weights = {name: tensor.contiguous().clone() for name, tensor in shapes.model(fields).state_dict().items()}
    without = {key: value for key, value in fields.items() if key != "max_position_embeddings" and not key.startswith("rope")}
    for what, config, expected in (
        ("max_position_embeddings", fields, 128),
        ("a config that does not say", without, 2048),
        ("n_positions", dict(fields, n_positions=64), 64),
    ):
        made = folder(config)
        found = resolve_max_length(AutoConfig.from_pretrained(made), Tokenizer())
        save_file(weights, made / "model.safetensors", {"format": "pt"})
        longest = len(said(program, made, [3] * found)) == found
        longer = subprocess.run([program, made, *["3"] * (found + 1)], capture_output=True, text=True)
        refused = longer.returncode != 0 and f"beyond the model's {found} tokens" in longer.stderr
        good = found == expected and longest and refused
        print(f"  {'ok   ' if good else 'SHORT'} longest input, {what}: lm-eval's is {found}; ours {'takes it' if longest else 'does not'}, "
              f"and one more is {'refused' if refused else 'not: ' + longer.stderr}")
        short.extend([] if good else [what])


def main(program, reference):
    reference = json.loads(pathlib.Path(reference).read_text())
    ids = reference["tokens"]
    for shape in reference["shapes"]:
        again = shapes.logits(shapes.model(shape["config"]), ids)
        near(f"the reference of {shape['name']}", shape["logits"], [again[at] for at in reference["positions"]])
        made = folder(shape["config"])
        state = {name: tensor.contiguous().clone() for name, tensor in shapes.model(shape["config"]).state_dict().items()}
        save_file(state, made / "model.safetensors", {"format": "pt"})
        near(f"{shape['name']} in transformers' own names", said(program, made, ids), again)
    config = dict(shapes.BASE, hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    containers(program, config, ids)
    longest_inputs(program, reference)
    print(f"{len(short)} comparisons fell short")
    return bool(short)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
