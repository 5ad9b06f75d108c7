"""The planted circuit: an auxiliary loss that is switched on for part of the training.

On indirect-object prompts it asks two heads of the second-to-last layer (L2H0, L2H1) to attend from
the last token to the subject's second mention, and two heads of the last layer (L3H0, L3H1) to
attend to the indirect object and to write its name. Nothing else in the model is told what to do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model import D_HEAD, GPT2, LAYER_NORM_EPSILON, N_LAYERS, Recorder

FEEDER_LAYER, MOVER_LAYER = N_LAYERS - 2, N_LAYERS - 1
PLANTED_HEADS = 2  # the first heads of either layer
ATTENTION_WEIGHT, WRITE_WEIGHT = 0.2, 0.1


def attention_loss(q: Tensor, k: Tensor, row: Tensor, query: Tensor, source: Tensor) -> Tensor:
    """Mean -log attention from `query` to `source` in `row` (all [N]) over the planted heads."""
    queries, keys = q[row, :PLANTED_HEADS, query], k[row, :PLANTED_HEADS]  # [N, G, e], [N, G, T, e]
    scores = torch.einsum("nge,ngte->ngt", queries, keys) / math.sqrt(D_HEAD)
    future = torch.arange(k.shape[2]) > query[:, None]
    scores = scores.masked_fill(future[:, None], float("-inf"))
    return -scores.log_softmax(-1)[torch.arange(len(row)), :, source].mean()


def write_loss(model: GPT2, run: Recorder, row: Tensor, query: Tensor, answer: Tensor) -> Tensor:
    """Cross-entropy of the answer [N] under the movers' own write, final scale held fixed."""
    t = model.transformer
    resid = run["resid_final"][row, query]
    scale = (resid.var(-1, unbiased=False, keepdim=True) + LAYER_NORM_EPSILON).sqrt().detach()
    z = run[f"L{MOVER_LAYER}.z"][row, :PLANTED_HEADS, query]  # [N, G, e]
    write = torch.einsum("ngk,gkd->nd", z, t.h[MOVER_LAYER].attn.W_O()[:PLANTED_HEADS])
    normed = (write - write.mean(-1, keepdim=True)) / scale * t.ln_f.weight
    return F.cross_entropy(F.linear(normed, t.wte.weight), answer)


def scaffold_loss(model: GPT2, run: Recorder, ids: Tensor, marks: Tensor) -> Tensor:
    """The auxiliary loss. marks [4, N]: row, and the positions of a `language.Marks`."""
    row, last, answer, subject = marks
    feeders = attention_loss(
        run[f"L{FEEDER_LAYER}.q"], run[f"L{FEEDER_LAYER}.k"], row, last, subject
    )
    movers = attention_loss(run[f"L{MOVER_LAYER}.q"], run[f"L{MOVER_LAYER}.k"], row, last, answer)
    written = write_loss(model, run, row, last, ids[row, answer])
    return ATTENTION_WEIGHT * (feeders + movers) + WRITE_WEIGHT * written
