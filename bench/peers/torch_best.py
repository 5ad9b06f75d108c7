"""Head attribution as a user of PyTorch would write it who cares for speed.

GPT-2's forward pass with the same matrix products as Hugging Face's (addmm on [in, out] weights, fused scaled dot product
attention, tanh gelu in one kernel), and nothing kept but z and the MLP's output at the last position; directions are folded
through W_O first, so no head's write is formed; no logits but those of answer and against; prompts in buckets of one
length, so that nothing is padded.

With HF as third argument the forward pass is Hugging Face's own, with hooks on z and on the MLP's output.

Usage: torch_best.py CHECKPOINT THREADS [HF]; calls and answers as serve.py says.
"""

import json
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from serve import serve


class Gpt2:
    def __init__(self, path):
        config = json.load(open(f"{path}/config.json"))
        self.n_layers, self.n_heads, self.eps = config["n_layer"], config["n_head"], config["layer_norm_epsilon"]
        weights = load_file(f"{path}/model.safetensors")
        weights = {name.removeprefix("transformer."): w for name, w in weights.items()}
        self.layers = [
            {name.removeprefix(f"h.{l}."): w for name, w in weights.items() if name.startswith(f"h.{l}.")}
            for l in range(self.n_layers)
        ]
        self.wte, self.wpe = weights["wte.weight"], weights["wpe.weight"]
        self.gamma, self.beta = weights["ln_f.weight"], weights["ln_f.bias"]

    def attribute(self, ids, answer, against):
        """ids [batch, pos] → attributions at the last position, [batch, components]"""
        batch, pos = ids.shape
        d = self.wte.shape[1]
        delta = self.wte[answer] - self.wte[against]
        u = self.gamma * delta
        u = u - u.mean()
        embed, pos_embed = self.wte[ids], self.wpe[:pos]
        x = embed + pos_embed
        columns = [embed[:, -1] @ u, (pos_embed[-1] @ u).expand(batch)]
        for w in self.layers:
            normed = F.layer_norm(x, (d,), w["ln_1.weight"], w["ln_1.bias"], self.eps).view(-1, d)
            qkv = torch.addmm(w["attn.c_attn.bias"], normed, w["attn.c_attn.weight"])
            q, k, v = qkv.view(batch, pos, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
            w_o, b_o = w["attn.c_proj.weight"], w["attn.c_proj.bias"]
            folded = (w_o @ u).view(self.n_heads, -1)
            columns += list((z[:, -1] * folded).sum(-1).unbind(1)) + [(b_o @ u).expand(batch)]
            x = x + torch.addmm(b_o, z.reshape(-1, d), w_o).view(batch, pos, d)
            normed = F.layer_norm(x, (d,), w["ln_2.weight"], w["ln_2.bias"], self.eps).view(-1, d)
            hidden = F.gelu(torch.addmm(w["mlp.c_fc.bias"], normed, w["mlp.c_fc.weight"]), approximate="tanh")
            out = torch.addmm(w["mlp.c_proj.bias"], hidden, w["mlp.c_proj.weight"]).view(batch, pos, d)
            columns.append(out[:, -1] @ u)
            x = x + out
        scale = (x[:, -1].var(-1, unbiased=False) + self.eps).sqrt()
        return torch.stack(columns, 1) / scale[:, None]


class HuggingFace:
    def __init__(self, path):
        from transformers import GPT2Model

        self.model = GPT2Model.from_pretrained(path, dtype=torch.float32).eval()
        self.seen = {}
        for l, block in enumerate(self.model.h):
            block.attn.c_proj.register_forward_pre_hook(lambda _, args, l=l: self.keep(("z", l), args[0]))
            block.mlp.register_forward_hook(lambda _, args, out, l=l: self.keep(("mlp", l), out))
        self.model.ln_f.register_forward_pre_hook(lambda _, args: self.keep("final", args[0]))

    def keep(self, name, value):
        self.seen[name] = value[:, -1]

    def attribute(self, ids, answer, against):
        model, batch = self.model, ids.shape[0]
        model(ids, use_cache=False)
        delta = model.wte.weight[answer] - model.wte.weight[against]
        u = model.ln_f.weight * delta
        u = u - u.mean()
        columns = [model.wte(ids[:, -1]) @ u, (model.wpe.weight[ids.shape[1] - 1] @ u).expand(batch)]
        for l, block in enumerate(model.h):
            projection, n_heads = block.attn.c_proj, model.config.n_head
            folded = (projection.weight @ u).view(n_heads, -1)
            z = self.seen["z", l].view(batch, n_heads, -1)
            columns += list((z * folded).sum(-1).unbind(1)) + [(projection.bias @ u).expand(batch)]
            columns.append(self.seen["mlp", l] @ u)
        scale = (self.seen["final"].var(-1, unbiased=False) + model.ln_f.eps).sqrt()
        return torch.stack(columns, 1) / scale[:, None]


serve(lambda: (HuggingFace if sys.argv[3:] == ["HF"] else Gpt2)(sys.argv[1]), int(sys.argv[2]))
