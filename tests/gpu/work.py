"""The arithmetic of an evaluation: what has to be computed.

A token goes through the layers' products with 2 FLOP for each of their weights; where logits are wanted, through the output matrix
as well. Attention multiplies a token's queries with the keys that it looks at and their weights with the values: 4 FLOP for each head,
its width and each key, in each layer. An embedding is looked up, and norms, rotations and softmax are not counted."""


def widths(config):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    return hidden, heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim


def weights(config):
    """(weights of the layers' products, of the output matrix, all parameters)"""
    hidden, q, kv = widths(config)
    layers = config["num_hidden_layers"]
    products = layers * (2 * hidden * q + 2 * hidden * kv + 3 * hidden * config["intermediate_size"])
    head = hidden * config["vocab_size"]
    return products, head, products + 2 * head + (2 * layers + 1) * hidden


def of_task(config, row):
    """FLOP of a task by its counts."""
    products, head, parameters = weights(config)
    _, q, _ = widths(config)
    attention = 4 * row["n_looked_at"] * q * config["num_hidden_layers"]
    return {
        "needed": 2 * products * row["n_computed"] + 2 * head * row["n_scored"] + attention,
        "by_parameters": 2 * parameters * row["n_computed"] + attention,
        "attention": attention,
    }

