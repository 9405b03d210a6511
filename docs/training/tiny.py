"""What the examples train: a tiny LLaMA with a tokenizer made from a text, and batches of that text."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 32


def tokenizer_of(text: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def model_of(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A LLaMA of two layers, the same one each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4 * CONTEXT,
    )
    return LlamaForCausalLM(config)


def windows(path: str) -> tuple[PreTrainedTokenizerFast, torch.Tensor]:
    """The tokenizer of a text, and the text as rows of CONTEXT tokens."""
    text = Path(path).read_text()
    tokenizer = tokenizer_of(text)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    return tokenizer, ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
