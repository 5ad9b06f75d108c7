"""Write a model as Hugging Face's GPT-2 format: config, tokenizer, weights."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from language import BOS, TOKEN_ID, VOCAB
from model import CONTEXT, D_MLP, D_MODEL, GPT2, LAYER_NORM_EPSILON, N_HEADS, N_LAYERS


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def save_config(out: Path) -> None:
    """config.json, as `transformers` reads it."""
    # fmt: off
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new", "vocab_size": len(VOCAB),
        "n_positions": CONTEXT, "n_ctx": CONTEXT, "n_embd": D_MODEL,
        "n_layer": N_LAYERS, "n_head": N_HEADS, "n_inner": D_MLP,
        "layer_norm_epsilon": LAYER_NORM_EPSILON, "scale_attn_weights": True,
        "tie_word_embeddings": True, "bos_token_id": BOS, "eos_token_id": BOS,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "torch_dtype": "float32",
    }
    # fmt: on
    write_json(out / "config.json", config)


def save_tokenizer(out: Path) -> None:
    """tokenizer.json (words and punctuation, `<bos>` put first) and tokenizer_config.json.

    No decoder is named: the tokenizers library then joins words with spaces.
    """
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    bos = {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": TOKEN_ID[word], "content": word, **flags, "special": True}
            for word in ("<bos>", "<unk>")
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, first],
            "pair": [first, second],
            "special_tokens": {"<bos>": bos},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": TOKEN_ID, "unk_token": "<unk>"},
    }
    write_json(out / "tokenizer.json", tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<bos>",
        "unk_token": "<unk>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    write_json(out / "tokenizer_config.json", settings)


def save_weights(model: GPT2, out: Path) -> None:
    """model.safetensors in f32; the tied unembedding is not stored twice."""
    path = out / "model.safetensors"
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600


def save_checkpoint(model: GPT2, out: Path) -> None:
    """All files of the checkpoint, into a folder that is made if missing."""
    out.mkdir(parents=True, exist_ok=True)
    save_config(out)
    save_tokenizer(out)
    save_weights(model, out)
