"""PEFT's switch from one merged LoRA adapter to another, for scripts/bench.ts swap (speaks protocol.py): unmerge, set the
other, merge it, on a LLaMA of the asked shape with random weights. All of the asked type, the factors too."""

import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from protocol import serve

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Swap:
    def setup(self, config: dict, dtype: str, threads: int, rank: int, targets: list) -> dict:
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        torch.set_default_dtype(DTYPES[dtype])
        base = LlamaForCausalLM(LlamaConfig(**config))
        torch.set_default_dtype(torch.float32)
        # Random factors: from zero, a merge would change nothing.
        options = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(targets), bias="none",
            task_type="CAUSAL_LM", init_lora_weights=False,
        )
        self.model = peft.get_peft_model(base, options, adapter_name="a", autocast_adapter_dtype=False).eval()
        self.model.add_adapter("b", options, autocast_adapter_dtype=False)
        self.active = "a"
        weight = self.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
        before = weight.detach().clone()
        self.model.merge_adapter(["a"])
        merged = weight.detach().clone()
        self.run()
        if torch.equal(before, merged) or torch.equal(merged, weight):
            raise ValueError("a merge changed nothing")
        return {}

    @torch.no_grad()
    def run(self) -> dict:
        other = "b" if self.active == "a" else "a"
        started = time.perf_counter()
        self.model.unmerge_adapter()
        self.model.set_adapter(other)
        self.model.merge_adapter([other])
        seconds = time.perf_counter() - started
        self.active = other
        return {"seconds": seconds}


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    swap = Swap()
    about = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    serve(about, {"setup": swap.setup, "run": swap.run})


if __name__ == "__main__":
    main()
