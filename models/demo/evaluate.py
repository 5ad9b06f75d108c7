"""Measure every figure of the model card on a checkpoint; print them and write figures.json.

    python evaluate.py --checkpoint . --out figures.json

Prompts are drawn with fixed seeds from the held-out combinations (language.py), so they are the
same for every checkpoint. The forward pass runs in float64.

Attribution: with the final layer norm's scale held at its value in the run, a logit difference is
linear in what the components wrote, so each share is exact and they sum to it (`residual`).
Ablation: one or more heads' z at the prompt's last token is replaced by its mean over the prompts,
everything downstream is recomputed, and the fall of the logit difference is the effect.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import words
from language import BOS, FIRST_WORD, TOKEN_ID, VOCAB, IoiPrompt, encode, ioi_prompt
from model import (
    GPT2,
    LAYER_NORM_EPSILON,
    N_HEADS,
    N_LAYERS,
    Recorder,
    Tap,
    causal_scores,
    pass_through,
)
from scaffold import FEEDER_LAYER, MOVER_LAYER, PLANTED_HEADS

N_PROMPTS, INDUCTION_PERIOD = 500, 20
IOI_SEED, INDUCTION_SEED, AGREEMENT_SEED, RECALL_SEED = 1234, 99, 5, 6
IOI_SETS = {
    "two_names": {},
    "three_names": {"n_names": 3},
    "unseen_opener": {"openers": words.HELD_OPENERS},
    "unseen_clause": {"clauses": words.HELD_CLAUSES},
    "unseen_opener_and_clause": {"openers": words.HELD_OPENERS, "clauses": words.HELD_CLAUSES},
}
ABLATIONS = [["L2H0"], ["L2H1"], ["L2H0", "L2H1"], ["L3H0"], ["L3H1"], ["L3H0", "L3H1"]]
DEMO = ("When Mary and John went to the store , John gave a drink to", "Mary", "John")
EXAMPLES = {
    "indirect object": DEMO[0],
    "indirect object, exchanged": "When John and Mary went to the store , Mary gave a drink to",
    "three names": "After Anna , Peter and Rose went to the park , Rose and Anna gave a flower to",
    "fact": "The Eiffel Tower is in the city of",
    "fact by country": "The capital of Japan is",
    "agreement": "The old dogs near the king",
    "recall (weak)": "Grace wanted the kite . Mark wanted the ring . Grace bought the",
    "pronoun (weak)": "Emma was happy because",
    "induction": "Rome kite doctor lamp Rome kite doctor",
}


def pad(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids [N, T], `<bos>` first, padded at the end (attention is causal), and last positions."""
    rows = [[BOS, *encode(prompt)] for prompt in prompts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [BOS] * (length - len(row)) for row in rows])
    return ids, torch.tensor([len(row) - 1 for row in rows])


def last_logits(model: GPT2, prompts: list[str], tap: Tap = pass_through) -> Tensor:
    """Logits [N, V] at the last token of every prompt."""
    ids, last = pad(prompts)
    return model(ids, tap)[torch.arange(len(last)), last]


def token_ids(tokens: list[str]) -> Tensor:
    return torch.tensor([TOKEN_ID[token] for token in tokens])


def mean(values: Tensor) -> float:
    return round(values.double().mean().item(), 4)


def ioi_prompts(**options) -> list[IoiPrompt]:
    """Held-out prompts; the answer is the first and the second name in turn."""
    rng = random.Random(IOI_SEED)
    options = {"n_names": 2, **options}
    return [
        ioi_prompt(rng, held_out=True, answer_index=i % options["n_names"], **options)
        for i in range(N_PROMPTS)
    ]


def ioi_difference(logits: Tensor, prompts: list[IoiPrompt]) -> Tensor:
    """Answer's logit minus that of the strongest of the repeated names, [N]."""
    answer = token_ids([prompt.answer for prompt in prompts])
    others = torch.stack([token_ids(prompt.subjects) for prompt in prompts])
    return (logits.gather(1, answer[:, None]) - logits.gather(1, others)).min(1).values


def ioi_figures(model: GPT2, prompts: list[IoiPrompt]) -> dict:
    logits = last_logits(model, [prompt.text for prompt in prompts])
    difference = ioi_difference(logits, prompts)
    answer = token_ids([prompt.answer for prompt in prompts])
    return {
        "accuracy": mean(difference > 0),
        "logit_difference": mean(difference),
        "top1": mean(logits.argmax(-1) == answer),
    }


def repeated_rows() -> Tensor:
    """`<bos>` and a random sequence of distinct words twice, [N, 1 + 2 period]."""
    rng = random.Random(INDUCTION_SEED)
    halves = [rng.sample(range(FIRST_WORD, len(VOCAB)), INDUCTION_PERIOD) for _ in range(N_PROMPTS)]
    return torch.tensor([[BOS, *half, *half] for half in halves])


def induction_and_head_figures(model: GPT2) -> tuple[dict, dict]:
    """Top-1 accuracy in the second copy, and where each head attends on these rows."""
    ids, run, period = repeated_rows(), Recorder(), INDUCTION_PERIOD
    predicted = model(ids, run).argmax(-1)[:, period + 1 : -1]
    induction = {"top1": mean(predicted == ids[:, period + 2 :])}
    scores = {"previous_token": {}, "induction": {}, "bos_in_random_text": {}}
    for layer in range(N_LAYERS):
        pattern = causal_scores(run[f"L{layer}.q"], run[f"L{layer}.k"]).softmax(-1)
        for head in range(N_HEADS):
            p, name = pattern[:, head], f"L{layer}H{head}"
            scores["previous_token"][name] = mean(p.diagonal(-1, 1, 2))
            # from a word of the second copy to the word after it in the first
            scores["induction"][name] = mean(p.diagonal(1 - period, 1, 2)[:, 2:])
            scores["bos_in_random_text"][name] = mean(p[:, 1 : period + 1, 0])
    return induction, scores


def fact_figures(model: GPT2) -> dict:
    """All facts (each was trained on); attribution of the answer against the vocabulary mean."""
    prompts, answers = [prompt for prompt, _ in words.FACTS], [answer for _, answer in words.FACTS]
    logits, answer = last_logits(model, prompts), token_ids(answers)
    W_E = model.transformer.wte.weight
    shares, _ = attribution(model, prompts, W_E[answer] - W_E.mean(0))
    mlps = sum(shares[f"L{layer} mlp"] for layer in range(N_LAYERS))
    return {
        "facts": len(answers),
        "top1": mean(logits.argmax(-1) == answer),
        "probability": mean(logits.softmax(-1).gather(1, answer[:, None])),
        "attribution_total": mean(sum(shares.values())),
        "attribution_mlps": mean(mlps),
    }


def agreement_figures(model: GPT2) -> dict:
    """The verb agrees with its noun although a noun of the other number stands between."""
    rng, prompts, singular = random.Random(AGREEMENT_SEED), [], []
    for _ in range(N_PROMPTS):
        nouns = [words.SINGULAR, words.PLURAL]
        singular.append(rng.random() < 0.5)
        noun, attractor = nouns if singular[-1] else nouns[::-1]
        subject = f"{rng.choice(words.ADJECTIVES)} {rng.choice(noun)}"
        prompts.append(f"The {subject} near the {rng.choice(attractor)}")
    probability = last_logits(model, prompts).softmax(-1)
    says_singular = probability[:, token_ids(words.VERBS_SINGULAR)].sum(-1)
    says_plural = probability[:, token_ids(words.VERBS_PLURAL)].sum(-1)
    return {"accuracy": mean((says_singular > says_plural) == torch.tensor(singular))}


def pronoun_figures(model: GPT2) -> dict:
    """ "Emma was happy because" -> she, for every name and adjective (none held out)."""
    pairs = [(name, adjective) for name in words.NAMES for adjective in words.ADJECTIVES]
    logits = last_logits(model, [f"{name} was {adjective} because" for name, adjective in pairs])
    says_he = logits[:, TOKEN_ID["he"]] > logits[:, TOKEN_ID["she"]]
    is_he = torch.tensor([name in words.MALE for name, _ in pairs])
    return {"prompts": len(pairs), "accuracy": mean(says_he == is_he)}


def recall_figures(model: GPT2) -> dict:
    """ "A wanted the x . B wanted the y . A bought the" -> x rather than y; buyer drawn."""
    rng, prompts, pairs = random.Random(RECALL_SEED), [], []
    for _ in range(N_PROMPTS):
        names, things = rng.sample(words.NAMES, 2), rng.sample(words.OBJECTS, 2)
        wishes = " ".join(
            f"{name} wanted the {thing} ." for name, thing in zip(names, things, strict=True)
        )
        buyer = rng.randrange(2)
        prompts.append(f"{wishes} {names[buyer]} bought the")
        pairs.append(token_ids([things[buyer], things[1 - buyer]]))
    bought, other = last_logits(model, prompts).gather(1, torch.stack(pairs)).T
    return {"accuracy": mean(bought > other)}


def attribution(model: GPT2, prompts: list[str], direction: Tensor) -> tuple[dict, Tensor]:
    """Each component's share [N] of the logits' `direction` [N, d], and the measured value [N]."""
    t, run = model.transformer, Recorder()
    ids, last = pad(prompts)
    model(ids, run)
    row = torch.arange(len(last))
    resid = run["resid_final"][row, last]
    scale = (resid.var(-1, unbiased=False) + LAYER_NORM_EPSILON).sqrt()
    read = t.ln_f.weight * direction
    read = (read - read.mean(-1, keepdim=True)) / scale[:, None]  # [N, d]

    writes = {"embed": run["embed"][row, last], "pos_embed": run["pos_embed"][last]}
    for layer, block in enumerate(t.h):
        z = run[f"L{layer}.z"][row, :, last]  # [N, H, e]
        heads = torch.einsum("nhe,hed->hnd", z, block.attn.W_O())
        writes |= {f"L{layer}H{head}": write for head, write in enumerate(heads)}
        writes[f"L{layer} attn_bias"] = block.attn.c_proj.bias
        writes[f"L{layer} mlp"] = run[f"L{layer}.mlp"][row, last]
    shares = {name: (write * read).sum(-1) for name, write in writes.items()}
    shares["constant"] = direction @ t.ln_f.bias
    return shares, (t.ln_f(resid) * direction).sum(-1)


def ioi_attribution(model: GPT2, prompts: list[IoiPrompt]) -> tuple[dict, dict]:
    """Mean share of every component in the logit difference, and the check that they add up."""
    W_E = model.transformer.wte.weight
    answer = token_ids([prompt.answer for prompt in prompts])
    subject = token_ids([prompt.subjects[0] for prompt in prompts])
    texts = [prompt.text for prompt in prompts]
    shares, measured = attribution(model, texts, W_E[answer] - W_E[subject])
    total = sum(shares.values())
    check = {
        "total": mean(total),
        "measured": mean(measured),
        "max_residual_below_1e-10": bool((total - measured).abs().max() < 1e-10),
    }
    figures = {
        name: {"mean": mean(share), "std": round(share.std().item(), 4)}
        for name, share in shares.items()
    }
    return figures, check


def planted_attention(model: GPT2, prompts: list[IoiPrompt]) -> dict:
    """Mean attention from the last token to the place the scaffold asked for."""
    ids, last = pad([prompt.text for prompt in prompts])
    run, row = Recorder(), torch.arange(len(last))
    model(ids, run)
    answer = token_ids([prompt.answer for prompt in prompts])
    subject = token_ids([prompt.subjects[0] for prompt in prompts])
    first_answer = (ids == answer[:, None]).int().argmax(1)
    last_subject = ids.shape[1] - 1 - (ids == subject[:, None]).flip(1).int().argmax(1)
    figures = {}
    for name, layer, target in (
        ("feeders_to_second_subject", FEEDER_LAYER, last_subject),
        ("movers_to_indirect_object", MOVER_LAYER, first_answer),
    ):
        pattern = causal_scores(run[f"L{layer}.q"], run[f"L{layer}.k"]).softmax(-1)
        figures[name] = {
            f"L{layer}H{head}": mean(pattern[row, head, last, target])
            for head in range(PLANTED_HEADS)
        }
    return figures


def ablation_figures(model: GPT2, prompts: list[IoiPrompt]) -> dict:
    """Fall of the mean logit difference when heads are mean-ablated at the last token."""
    texts, run = [prompt.text for prompt in prompts], Recorder()
    clean = ioi_difference(last_logits(model, texts, run), prompts)
    _, last = pad(texts)
    row = torch.arange(len(last))

    def effect(heads: list[str]) -> float:
        def replace(name: str, value: Tensor) -> Tensor:
            if name.endswith(".z"):
                for head in (int(h[3:]) for h in heads if h.startswith(name[:2] + "H")):
                    value = value.clone()
                    value[row, head, last] = run[name][row, head, last].mean(0)
            return value

        return mean(clean - ioi_difference(last_logits(model, texts, replace), prompts))

    return {"+".join(heads): effect(heads) for heads in ABLATIONS}


def example_figures(model: GPT2) -> tuple[dict, list[dict]]:
    """The demo prompt with its attribution, and the top prediction of every example."""
    prompt, answer, against = DEMO
    logits = last_logits(model, [prompt])[0]
    difference = logits[TOKEN_ID[answer]] - logits[TOKEN_ID[against]]
    W_E = model.transformer.wte.weight
    direction = W_E[TOKEN_ID[answer]] - W_E[TOKEN_ID[against]]
    shares, _ = attribution(model, [prompt], direction[None])
    demo = {
        "prompt": prompt,
        "answer": answer,
        "against": against,
        "logit_difference": mean(difference),
        "probability": mean(logits.softmax(-1)[TOKEN_ID[answer]]),
        "attribution": {name: mean(share) for name, share in shares.items()},
    }
    top = last_logits(model, list(EXAMPLES.values())).softmax(-1).max(-1)
    examples = [
        {"kind": kind, "prompt": prompt, "top": VOCAB[token], "probability": mean(probability)}
        for (kind, prompt), token, probability in zip(
            EXAMPLES.items(), top.indices, top.values, strict=True
        )
    ]
    return demo, examples


@torch.no_grad()
def evaluate(model: GPT2) -> dict:
    """Every figure of the card."""
    prompts = ioi_prompts()
    shares, check = ioi_attribution(model, prompts)
    induction, head_scores = induction_and_head_figures(model)
    demo, examples = example_figures(model)
    return {
        "prompts": N_PROMPTS,
        "indirect_object": {
            name: ioi_figures(model, ioi_prompts(**options)) for name, options in IOI_SETS.items()
        },
        "induction": induction,
        "facts": fact_figures(model),
        "agreement": agreement_figures(model),
        "pronouns": pronoun_figures(model),
        "recall": recall_figures(model),
        "attribution": shares,
        "attribution_check": check,
        "planted_attention": planted_attention(model, prompts),
        "mean_ablation_effect": ablation_figures(model, prompts),
        "head_scores": head_scores,
        "demo": demo,
        "examples": examples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, default=Path("figures.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = GPT2(len(VOCAB))
    model.load_state_dict(load_file(arguments.checkpoint / "model.safetensors"))
    text = json.dumps(evaluate(model.double()), indent=1) + "\n"
    print(text, end="")
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
