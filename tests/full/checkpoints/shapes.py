"""LLaMA's shapes that the evaluator must compute as transformers does, with weights that follow from their names; the Rust
test evaluator/tests/shapes.rs makes the same weights and reads the logits that this writes.

python3 shapes.py > evaluator/tests/shapes.json
"""

import json
import sys

import numpy
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

BASE = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", vocab_size=40, intermediate_size=56,
    num_hidden_layers=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
SHAPES = {
    "llama3_tied_gqa_own_head_dim": dict(
        hidden_size=48, num_attention_heads=6, num_key_value_heads=2, head_dim=22, tie_word_embeddings=True,
        rope_theta=500000.0, rope_scaling=LLAMA3,
    ),
    "llama3_in_rope_parameters": dict(
        hidden_size=40, num_attention_heads=4, num_key_value_heads=4, head_dim=16, tie_word_embeddings=False,
        rope_parameters=dict(LLAMA3, rope_theta=10000.0),
    ),
    "linear_untied_one_kv_head": dict(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=False, rope_theta=10000.0,
        rope_scaling={"type": "linear", "factor": 4.0},
    ),
    "linear_in_rope_parameters": dict(
        hidden_size=36, num_attention_heads=3, num_key_value_heads=3, tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 100000.0},
    ),
    "old_without_kv_heads": dict(hidden_size=32, num_attention_heads=4),
    "narrow_heads": dict(
        hidden_size=50, num_attention_heads=5, num_key_value_heads=5, head_dim=2, rope_theta=1000000.0, rope_scaling=None
    ),
    "biases": dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=10, attention_bias=True, mlp_bias=True),
    "biases_of_attention_alone": dict(hidden_size=32, num_attention_heads=4, attention_bias=True, tie_word_embeddings=True),
}
POSITIONS = [0, 1, 30, 99]


def tokens(n=100):
    return [1 + i * 37 % 39 for i in range(n)]


def numbers(name, n):
    """Numbers in [-1/2, 1/2) that follow from a name: FNV-1a, then Knuth's MMIX generator."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    values = []
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((state >> 40) / 2**24 - 0.5)
    return numpy.array(values, dtype=numpy.float32)


def model(config):
    made = AutoModelForCausalLM.from_config(LlamaConfig.from_dict(config), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            values = torch.from_numpy(numbers(name, weight.numel())).reshape(weight.shape)
            weight.copy_(1 + 0.5 * values if weight.dim() == 1 else values)
    made.tie_weights()
    return made


def logits(made, ids):
    with torch.no_grad():
        return made(torch.tensor([ids])).logits[0].tolist()


if __name__ == "__main__":
    shapes = []
    for name, fields in SHAPES.items():
        config = dict(BASE, **fields)
        at = logits(model(config), tokens())
        rounded = [[round(value, 6) for value in at[position]] for position in POSITIONS]
        shapes.append(dict(name=name, config=config, logits=rounded))
    json.dump(dict(tokens=tokens(), positions=POSITIONS, shapes=shapes), sys.stdout)
    print()
