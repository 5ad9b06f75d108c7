"""Head attribution as a user of TransformerLens would write it who cares for speed.

`run_with_cache` keeps z and the MLP's output, the final norm's scale and nothing else; directions are folded through W_O first,
so no head's write is formed. HookedTransformer is gone since 4.0: the model is a TransformerBridge, on the weights as they are
(no compatibility mode, so nothing is folded or centred), with the attention that it boots with.

Usage: transformerlens.py CHECKPOINT THREADS, with requirements-transformerlens.txt; calls and answers as serve.py says.
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"], os.environ["WANDB_MODE"] = "1", "disabled"

import torch
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from serve import serve


class Lens:
    def __init__(self, path):
        # boot asks for a tokenizer; nothing here is tokenised
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")), unk_token="<unk>", eos_token="<unk>"
        )
        gpt2 = GPT2LMHeadModel.from_pretrained(path, dtype=torch.float32).eval()
        self.model = TransformerBridge.boot_transformers(
            path, hf_model=gpt2, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )
        self.w_o = [block.attn.W_O for block in self.model.blocks]
        self.b_o = [block.attn.b_O for block in self.model.blocks]

    @staticmethod
    def kept(name):
        return name.endswith(("attn.hook_z", "hook_mlp_out")) or name == "ln_final.hook_scale"

    def attribute(self, ids, answer, against):
        model, batch = self.model, ids.shape[0]
        _, cache = model.run_with_cache(ids, names_filter=self.kept, return_type=None)
        u = model.ln_final.weight * (model.W_U[:, answer] - model.W_U[:, against])
        u = u - u.mean()
        columns = [model.W_E[ids[:, -1]] @ u, (model.W_pos[ids.shape[1] - 1] @ u).expand(batch)]
        for l, (w_o, b_o) in enumerate(zip(self.w_o, self.b_o)):
            z = cache[f"blocks.{l}.attn.hook_z"][:, -1]
            columns += list((z * (w_o @ u)).sum(-1).unbind(1)) + [(b_o @ u).expand(batch)]
            columns.append(cache[f"blocks.{l}.hook_mlp_out"][:, -1] @ u)
        return torch.stack(columns, 1) / cache["ln_final.hook_scale"][:, -1]


serve(lambda: Lens(sys.argv[1]), int(sys.argv[2]))
