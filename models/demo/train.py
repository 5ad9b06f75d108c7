"""Train the demo model and write it in Hugging Face's GPT-2 format.

    python train.py --out . --seed 0

The same seed, on the same machine with the pinned versions, gives the same file. One CPU thread.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import time
from pathlib import Path

import numpy
import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import language
from checkpoint import save_checkpoint, write_json
from model import GPT2, Recorder, pass_through
from scaffold import scaffold_loss

STEPS, BATCH_ROWS, ROW_LENGTH = 2400, 32, 48
INDUCTION_ROWS = 11  # of the batch; the rest is text
LEARNING_RATE, FINAL_LEARNING_RATE_SHARE, WARMUP_STEPS = 4e-3, 0.02, 100
BETAS, WEIGHT_DECAY, MAX_GRADIENT_NORM = (0.9, 0.98), 0.1, 1.0
SCAFFOLD_STEPS = range(960, 2040)
LOG_EVERY = 240


def sample_batch(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [B, T], loss weights of those tokens [B, T], scaffold marks [4, N]."""
    ids, weights, marks = [], [], []
    for _ in range(INDUCTION_ROWS):
        row, predictable = language.induction_row(rng, ROW_LENGTH)
        ids.append(row)
        weights.append([0.0] * predictable + [1.0] * (ROW_LENGTH - predictable))
    for index in range(INDUCTION_ROWS, BATCH_ROWS):
        row, positions = language.text_row(rng, ROW_LENGTH)
        ids.append(row)
        weights.append([1.0] * ROW_LENGTH)
        marks += [(index, *p) for p in positions]
    return torch.tensor(ids), torch.tensor(weights), torch.tensor(marks).view(-1, 4).T


def next_token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of every next token, [B, T - 1]."""
    logits = logits[:, :-1]
    flat = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none"
    )
    return flat.view(len(ids), -1)


def learning_rate(step: int) -> float:
    """Linear warm-up under a cosine that ends at a small share of the peak."""
    floor = FINAL_LEARNING_RATE_SHARE
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
    return LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * cosine


def make_optimizer(model: GPT2) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases, norms and position embeddings do not."""
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.dim() == 2 and "wpe" not in name else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


def train(seed: int) -> tuple[GPT2, list[dict]]:
    """The trained model, and the mean losses of every `LOG_EVERY` steps."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = GPT2(len(language.VOCAB))
    optimizer = make_optimizer(model)
    log, sums = [], torch.zeros(3)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        ids, weights, marks = sample_batch(rng)
        scaffolded = step in SCAFFOLD_STEPS
        run = Recorder()
        losses = next_token_losses(model(ids, run if scaffolded else pass_through), ids)
        losses, weights = losses * weights[:, 1:], weights[:, 1:]
        loss = losses.sum() / weights.sum()
        auxiliary = scaffold_loss(model, run, ids, marks) if scaffolded else torch.zeros(())
        optimizer.zero_grad(set_to_none=True)
        (loss + auxiliary).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()

        n = INDUCTION_ROWS
        induction, text = losses[:n].sum() / weights[:n].sum(), losses[n:].mean()
        sums += torch.stack([induction, text, auxiliary]).detach()
        if (step + 1) % LOG_EVERY == 0:
            means = [round(value, 4) for value in (sums / LOG_EVERY).tolist()]
            names = ("induction", "text", "auxiliary")
            log.append({"step": step + 1, **dict(zip(names, means, strict=True))})
            print(*(f"{key} {value}" for key, value in log[-1].items()), flush=True)
            sums.zero_()
    return model, log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    start = time.perf_counter()
    model, log = train(arguments.seed)
    save_checkpoint(model, arguments.out)
    modules = (torch, numpy, safetensors)
    versions = {module.__name__: module.__version__ for module in modules}
    record = {
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - start),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"python": platform.python_version(), **versions},
        "mean_losses": log,
    }
    write_json(arguments.out / "training.json", record)


if __name__ == "__main__":
    main()
