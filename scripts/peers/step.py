"""PyTorch's training step, for scripts/bench.ts step and memory: PEFT LoRA and DoRA, SBoRA-FA in plain PyTorch, and the
frozen model's forward alone, on a LLaMA of the asked shape with random weights.

    python step.py        speaks protocol.py; not for people

In bf16 everything is bf16, the factors too (`autocast_adapter_dtype=False`): PEFT's default keeps them in f32, which is
slower. Forward, loss over all labels, backward, clipping at norm 1 and AdamW, as the product's step.
"""

import copy
import math
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from protocol import peak_bytes, serve

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
LEARNING_RATE, CLIP, PADDING = 1e-4, 1.0, 0


class SboraLinear(nn.Module):
    """y = x W^T + s (x[:, index]) B^T, B trained from zero."""

    def __init__(self, base: nn.Linear, rank: int, scaling: float):
        super().__init__()
        self.base, self.scaling = base, scaling
        self.register_buffer("index", torch.randperm(base.in_features)[:rank])
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + self.scaling * nn.functional.linear(x[..., self.index], self.B)


def sharing_copy(model: nn.Module) -> nn.Module:
    """Another model around the same weights."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


class Trained:
    """A model with its trained parameters and their optimizer."""

    def __init__(self, model: nn.Module, select=lambda: None):
        self.model, self.select = model.train(), select
        select()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, weight_decay=0.0)

    def step(self, batch: dict) -> float:
        self.optimizer.zero_grad()
        loss = self.model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        return loss.item()


class Step:
    def setup(self, config: dict, dtype: str, threads: int, rank: int, alpha: float, targets: list, methods: list) -> dict:
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        started = time.perf_counter()
        shape = LlamaConfig(**{**config, "use_cache": False}, attn_implementation="sdpa")
        torch.set_default_dtype(DTYPES[dtype])
        base = LlamaForCausalLM(shape)
        torch.set_default_dtype(torch.float32)
        for p in base.parameters():
            p.requires_grad_(False)
        self.vocabulary = config["vocab_size"]
        self.trained, self.frozen = {}, None
        if "frozen" in methods:
            self.frozen = sharing_copy(base)
        if "sbora-fa" in methods:
            model = sharing_copy(base)
            for layer in model.model.layers:
                for block in (layer.self_attn, layer.mlp):
                    for name in targets:
                        if hasattr(block, name):
                            setattr(block, name, SboraLinear(getattr(block, name), rank, alpha / rank))
            self.trained["sbora-fa"] = Trained(model)
        self.attach_peft(base, [m for m in methods if m in ("lora", "dora")], rank, alpha, targets)
        trained = {name: sum(p.numel() for p in t.parameters) for name, t in self.trained.items()}
        return {"seconds": time.perf_counter() - started, "trained": trained}

    def attach_peft(self, base, names: list, rank: int, alpha: float, targets: list) -> None:
        """One PEFT model with an adapter a method, of which a step switches one on."""
        model = None
        for name in names:
            options = peft.LoraConfig(
                r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, bias="none",
                task_type="CAUSAL_LM", use_dora=name == "dora",
            )
            if model is None:
                model = peft.get_peft_model(base, options, adapter_name=name, autocast_adapter_dtype=False)
            else:
                model.add_adapter(name, options, autocast_adapter_dtype=False)
            self.trained[name] = Trained(model, lambda name=name: model.set_adapter(name))

    def batch(self, lengths: list) -> dict:
        """Random tokens; padded to the longest, all but the padding labelled."""
        longest = max(lengths)
        ids = torch.randint(1, self.vocabulary, (len(lengths), longest))
        labels = ids.clone()
        mask = torch.ones_like(ids)
        for row, length in enumerate(lengths):
            ids[row, length:], labels[row, length:], mask[row, length:] = PADDING, -100, 0
        batch = {"input_ids": ids, "labels": labels}
        return batch if min(lengths) == longest else {**batch, "attention_mask": mask}

    def run(self, method: str, lengths: list) -> dict:
        batch = self.batch(lengths)
        if method == "frozen":
            started = time.perf_counter()
            with torch.no_grad():
                loss = self.frozen(**batch).loss.item()
        else:
            trained = self.trained[method]
            trained.select()
            started = time.perf_counter()
            loss = trained.step(batch)
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise ValueError(f"{method}: loss {loss}")
        return {"seconds": seconds, "loss": loss}

    def peak(self) -> dict:
        return {"bytes": peak_bytes()}


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    step = Step()
    about = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    serve(about, {"setup": step.setup, "run": step.run, "peak": step.peak})


if __name__ == "__main__":
    main()
