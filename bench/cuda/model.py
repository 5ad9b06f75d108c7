"""Checkpoints of random weights in the shapes that are timed: model.py SHAPE DTYPE DIRECTORY.

Weights are uniform around zero (gains around one), their spread chosen so that a stream of this width neither dies nor
explodes, and drawn tensor by tensor from a generator of seed 7, so that every run has the same.
"""

import json
import math
import os
import sys

import torch
from safetensors.torch import save_file

GPT2 = {"tiny": (2, 4, 32, 101), "small": (12, 12, 768, 50257), "xl": (48, 25, 1600, 50257)}
LLAMA = {"tiny": (2, 4, 2, 32, 88, 101), "8b": (32, 32, 8, 4096, 14336, 128256)}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def gpt2(layers, heads, d, vocabulary):
    config = {
        "model_type": "gpt2", "n_layer": layers, "n_embd": d, "n_head": heads, "n_positions": 1024,
        "vocab_size": vocabulary, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    tensors = {"wte.weight": ([vocabulary, d], 0), "wpe.weight": ([1024, d], 0)}
    for l in range(layers):
        for name, shape in {"attn.c_attn": [d, 3 * d], "attn.c_proj": [d, d], "mlp.c_fc": [d, 4 * d], "mlp.c_proj": [4 * d, d]}.items():
            tensors |= {f"h.{l}.{name}.weight": (shape, 0), f"h.{l}.{name}.bias": (shape[1:], 0)}
        for name in ["ln_1", "ln_2"]:
            tensors |= {f"h.{l}.{name}.weight": ([d], 1), f"h.{l}.{name}.bias": ([d], 0)}
    return config, tensors | {"ln_f.weight": ([d], 1), "ln_f.bias": ([d], 0)}


def llama(layers, heads, groups, d, hidden, vocabulary):
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": d, "num_attention_heads": heads,
        "num_key_value_heads": groups, "intermediate_size": hidden, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "hidden_act": "silu", "max_position_embeddings": 8192, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    e = d // heads
    tensors = {"model.embed_tokens.weight": ([vocabulary, d], 0), "lm_head.weight": ([vocabulary, d], 0)}
    for l in range(layers):
        matrices = {
            "self_attn.q_proj": [d, d], "self_attn.k_proj": [groups * e, d], "self_attn.v_proj": [groups * e, d],
            "self_attn.o_proj": [d, d], "mlp.gate_proj": [hidden, d], "mlp.up_proj": [hidden, d], "mlp.down_proj": [d, hidden],
        }  # fmt: skip
        tensors |= {f"model.layers.{l}.{name}.weight": (shape, 0) for name, shape in matrices.items()}
        for name in ["input_layernorm", "post_attention_layernorm"]:
            tensors[f"model.layers.{l}.{name}.weight"] = ([d], 1)
    return config, tensors | {"model.norm.weight": ([d], 1)}


def write(shape, dtype, directory):
    family, size = shape.split("-")
    config, tensors = gpt2(*GPT2[size]) if family == "gpt2" else llama(*LLAMA[size])
    generator = torch.Generator().manual_seed(7)
    spread = 1.6 / math.sqrt(config.get("n_embd") or config["hidden_size"])

    def values(shape, middle):
        return (middle + spread * (2 * torch.rand(shape, generator=generator) - 1)).to(DTYPES[dtype])

    os.makedirs(directory)
    save_file({name: values(*of) for name, of in tensors.items()}, f"{directory}/model.safetensors")
    with open(f"{directory}/config.json", "w") as file:
        json.dump(config, file)


if __name__ == "__main__":
    write(*sys.argv[1:])
