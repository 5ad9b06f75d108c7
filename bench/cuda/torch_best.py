"""Head attribution on a GPU as a user of PyTorch would write it who cares for speed: GPT-2's and Llama's forward pass with
fused scaled dot product attention, in the weights' type, TF32 off; nothing kept but z and the MLP's output at the last
position; directions folded through W_O first; prompts in buckets of one length; one transfer at the end.

Usage: torch_best.py CHECKPOINT DTYPE DEVICE. Every line of stdin is a call, {"prompts": [[id, …], …], "answer": id, "against":
id, "rows": whether they are wanted}; every line of stdout an answer, {"seconds": …, "rows": [[attribution, …], …] or null,
"peak": bytes of the GPU}.
"""

import json
import sys
import time
from collections import defaultdict

import torch
import torch.nn.functional as F
from model import DTYPES
from safetensors.torch import load_file

BATCH_TOKENS = 32768


class Gpt2:
    def __init__(self, config, weights):
        self.n_layers, self.n_heads, self.eps = config["n_layer"], config["n_head"], config["layer_norm_epsilon"]
        self.w, self.embed, self.unembed = weights, weights["wte.weight"], weights["wte.weight"]

    def stream(self, ids):
        w, embed, pos_embed = self.w, self.embed[ids], self.w["wpe.weight"][: ids.shape[1]]
        return embed + pos_embed, [embed[:, -1], pos_embed[-1].expand(ids.shape[0], -1)]

    def direction(self, delta):
        u = self.w["ln_f.weight"].float() * delta
        return u - u.mean()

    def scale(self, x):
        return (x.var(-1, unbiased=False) + self.eps).sqrt()

    def layer(self, l, x):
        """The stream behind layer l; of its last position z, W_O, b_O and the MLP's output."""
        at = lambda name: self.w[f"h.{l}.{name}"]
        (batch, pos, d), dtype = x.shape, self.embed.dtype
        norm = lambda x, name: F.layer_norm(x, (d,), at(f"{name}.weight").float(), at(f"{name}.bias").float(), self.eps).to(dtype)
        linear = lambda x, name: torch.addmm(at(f"{name}.bias"), x.reshape(-1, x.shape[-1]), at(f"{name}.weight"))
        q, k, v = linear(norm(x, "ln_1"), "attn.c_attn").view(batch, pos, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, pos, d)
        x = x + linear(z, "attn.c_proj").view(x.shape).float()
        out = linear(F.gelu(linear(norm(x, "ln_2"), "mlp.c_fc"), approximate="tanh"), "mlp.c_proj").view(x.shape).float()
        return x + out, z[:, -1], at("attn.c_proj.weight"), at("attn.c_proj.bias"), out[:, -1]


class Llama:
    def __init__(self, config, weights):
        self.n_layers, self.n_heads, self.eps = config["num_hidden_layers"], config["num_attention_heads"], config["rms_norm_eps"]
        self.w, self.embed, self.unembed = weights, weights["model.embed_tokens.weight"], weights["lm_head.weight"]
        self.groups, self.e = config["num_key_value_heads"], config["hidden_size"] // self.n_heads
        half = torch.arange(0, self.e, 2, device=self.embed.device) / self.e
        self.frequencies = config["rope_theta"] ** -half

    def stream(self, ids):
        angles = torch.outer(torch.arange(ids.shape[1], device=ids.device), self.frequencies)
        self.cos, self.sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        embed = self.embed[ids]
        return embed, [embed[:, -1]]

    def direction(self, delta):
        return self.w["model.norm.weight"].float() * delta

    def scale(self, x):
        return (x.pow(2).mean(-1) + self.eps).sqrt()

    def turned(self, x):
        a, b = x.float().chunk(2, -1)
        return (x * self.cos + torch.cat([-b, a], -1) * self.sin).to(x.dtype)

    def layer(self, l, x):
        at = lambda name: self.w[f"model.layers.{l}.{name}.weight"]
        (batch, pos, d), dtype = x.shape, self.embed.dtype
        norm = lambda x, name: (F.rms_norm(x, (d,), at(name).float(), self.eps)).to(dtype)
        read = norm(x, "input_layernorm")
        heads = lambda name, n: F.linear(read, at(f"self_attn.{name}")).view(batch, pos, n, self.e).transpose(1, 2)
        q, k, v = self.turned(heads("q_proj", self.n_heads)), self.turned(heads("k_proj", self.groups)), heads("v_proj", self.groups)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).reshape(batch, pos, d)
        x = x + F.linear(z, at("self_attn.o_proj")).float()
        read = norm(x, "post_attention_layernorm")
        out = F.linear(F.silu(F.linear(read, at("mlp.gate_proj"))) * F.linear(read, at("mlp.up_proj")), at("mlp.down_proj")).float()
        return x + out, z[:, -1], at("self_attn.o_proj").T, None, out[:, -1]


def attribute(model, ids, answer, against):
    """ids [batch, pos] → attributions at the last position, [batch, components]"""
    u = model.direction(model.unembed[answer].float() - model.unembed[against].float())
    x, embeddings = model.stream(ids)
    x = x.float()
    columns = [write.float() @ u for write in embeddings]
    for l in range(model.n_layers):
        x, z, w_o, b_o, out = model.layer(l, x)
        folded = (w_o.float() @ u).view(model.n_heads, -1)
        columns += list((z.float().view(ids.shape[0], model.n_heads, -1) * folded).sum(-1).unbind(1))
        if b_o is not None:
            columns.append((b_o.float() @ u).expand(ids.shape[0]))
        columns.append(out @ u)
    return torch.stack(columns, 1) / model.scale(x[:, -1])[:, None]


def run(model, prompts, answer, against, device):
    buckets = defaultdict(list)
    for i, ids in enumerate(prompts):
        buckets[len(ids)].append(i)
    parts, order = [], []
    for length, members in buckets.items():
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            parts.append(attribute(model, torch.tensor([prompts[i] for i in part], device=device), answer, against))
            order += part
    rows = torch.cat(parts).cpu()
    return rows[torch.tensor(order).argsort()]


def main():
    path, dtype, device = sys.argv[1:]
    torch.backends.cuda.matmul.allow_tf32 = False
    config = json.load(open(f"{path}/config.json"))
    weights = load_file(f"{path}/model.safetensors", device=device)
    weights = {name: w.to(DTYPES[dtype]) for name, w in weights.items()}
    model = (Gpt2 if config["model_type"] == "gpt2" else Llama)(config, weights)
    with torch.inference_mode():
        for line in sys.stdin:
            call = json.loads(line)
            start = time.perf_counter()
            rows = run(model, call["prompts"], call["answer"], call["against"], device)
            seconds = time.perf_counter() - start
            peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
            rows = rows.tolist() if call.get("rows") else None
            print(json.dumps({"seconds": seconds, "rows": rows, "peak": peak}), flush=True)


main()
