"""A GPT-2-architecture transformer with Hugging Face parameter names, small enough to read.

Shapes: B rows, T positions, H heads, d = d_model, e = d_head, V vocabulary.
Every tensor of interest passes through a `tap`, a function `(name, tensor) -> tensor`, on its way:
a tap may record it or replace it. Names: `embed` [B, T, d], `pos_embed` [T, d], `L2.q`, `L2.k`,
`L2.z` [B, H, T, e], `L2.mlp` [B, T, d], `resid_final` [B, T, d].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_LAYERS, N_HEADS, D_MODEL, D_MLP, CONTEXT = 4, 4, 96, 64, 64
D_HEAD = D_MODEL // N_HEADS
LAYER_NORM_EPSILON = 1e-5
INIT_STD = 0.02  # 0.05 fails to learn induction

Tap = Callable[[str, Tensor], Tensor]


def pass_through(name: str, value: Tensor) -> Tensor:
    """The tap that does nothing."""
    return value


class Recorder(dict):
    """A tap that keeps every tensor under its name."""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        self[name] = value
        return value


class Conv1D(nn.Module):
    """y = x W + b, with W of shape [inputs, outputs] as GPT-2 stores it."""

    def __init__(self, inputs: int, outputs: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, write_std: float):
        super().__init__()
        self.c_attn = Conv1D(D_MODEL, 3 * D_MODEL, INIT_STD)
        self.c_proj = Conv1D(D_MODEL, D_MODEL, write_std)

    def forward(self, x: Tensor, layer: int, tap: Tap) -> Tensor:
        B, T, d = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, N_HEADS, D_HEAD).permute(2, 0, 3, 1, 4)
        q, k = tap(f"L{layer}.q", q), tap(f"L{layer}.k", k)
        z = tap(f"L{layer}.z", F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.c_proj(z.transpose(1, 2).reshape(B, T, d))

    def W_O(self) -> Tensor:
        """The output matrix by head, [H, e, d]: head h writes z[h] W_O[h]."""
        return self.c_proj.weight.view(N_HEADS, D_HEAD, D_MODEL)


class MLP(nn.Module):
    """Two linear maps with the tanh form of GELU ("gelu_new") between them."""

    def __init__(self, write_std: float):
        super().__init__()
        self.c_fc = Conv1D(D_MODEL, D_MLP, INIT_STD)
        self.c_proj = Conv1D(D_MLP, D_MODEL, write_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention, then the MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self):
        super().__init__()
        write_std = INIT_STD / math.sqrt(2 * N_LAYERS)
        self.ln_1, self.ln_2 = nn.LayerNorm(D_MODEL), nn.LayerNorm(D_MODEL)
        self.attn = Attention(write_std)
        self.mlp = MLP(write_std)

    def forward(self, x: Tensor, layer: int, tap: Tap) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, tap)
        return x + tap(f"L{layer}.mlp", self.mlp(self.ln_2(x)))


class GPT2(nn.Module):
    """Token ids [B, T] -> logits [B, T, V]; the unembedding is the token embedding."""

    def __init__(self, n_vocab: int):
        super().__init__()
        t = self.transformer = nn.Module()
        t.wte, t.wpe = nn.Embedding(n_vocab, D_MODEL), nn.Embedding(CONTEXT, D_MODEL)
        nn.init.normal_(t.wte.weight, std=INIT_STD)
        nn.init.normal_(t.wpe.weight, std=INIT_STD / 2)
        t.h = nn.ModuleList(Block() for _ in range(N_LAYERS))
        t.ln_f = nn.LayerNorm(D_MODEL, eps=LAYER_NORM_EPSILON)

    def forward(self, ids: Tensor, tap: Tap = pass_through) -> Tensor:
        t = self.transformer
        x = tap("embed", t.wte(ids)) + tap("pos_embed", t.wpe.weight[: ids.shape[1]])
        for layer, block in enumerate(t.h):
            x = block(x, layer, tap)
        return F.linear(t.ln_f(tap("resid_final", x)), t.wte.weight)


def causal_scores(q: Tensor, k: Tensor) -> Tensor:
    """Attention scores [B, H, T, T] with the future at minus infinity."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(D_HEAD)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf"))
