"""50 PEFT steps of LoRA and SBoRA-FA (as LoRA with a one-hot frozen A) on SmolLM2, float32, 1 thread.

    python train_curves.py [--model DIR] [--data FILE] [--methods lora,sbora-fa]

-> src/model/testdata/smollm2-curves.json. The start is made from formulas, so that nothing large has to be saved: see
`start` in the file. About 10 minutes a method.
"""

import argparse
import hashlib
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from folder import fingerprint
from reference import TARGETS, uniform

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
OUT = Path(__file__).resolve().parents[2] / "src/model/testdata/smollm2-curves.json"
RANK, ALPHA, STEPS, BATCH, CUTOFF, PEAK, WARMUP, CLIP = 32, 64, 50, 4, 128, 1e-3, 10, 1.0
TRAINING = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n"
    "                ### Instruction:\n                {instruction}\n                \n"
    "                ### Response:\n                {output}"
)


def encode(tokenizer, record: dict) -> list[int]:
    """Protocol §2.1 and §2.2: first CUTOFF tokens; EOS where there is room for it. This tokenizer adds no BOS."""
    assert record["input"] == ""
    ids = tokenizer(TRAINING.format(**record), truncation=True, max_length=CUTOFF).input_ids
    if len(ids) < CUTOFF and ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return ids


def lora_start(m: int, width: int) -> torch.Tensor:
    bound = 1 / np.sqrt(width)
    return torch.from_numpy(uniform(RANK * width, -bound, bound, m + 1).reshape(RANK, width))


def index_start(m: int, width: int) -> np.ndarray:
    index = (np.arange(RANK) * 17 + 5 * m) % width
    assert len(set(index.tolist())) == RANK
    return index


def adapted(folder: Path, method: str):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    names = [t.split(".")[-1] for t in TARGETS]
    options = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=names, bias="none", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, options)
    layers = model.base_model.model.model.layers
    sites = [layer.get_submodule(target) for layer in layers for target in TARGETS]
    for m, site in enumerate(sites):
        a = site.lora_A["default"].weight
        if method == "lora":
            a.data.copy_(lora_start(m, a.shape[1]))
        else:
            index = torch.from_numpy(index_start(m, a.shape[1]))
            a.data.copy_(torch.nn.functional.one_hot(index, a.shape[1]).float())
            a.requires_grad_(False)
        assert not site.lora_B["default"].weight.any()
    return model


def run(folder: Path, method: str, records: list[list[int]]) -> dict:
    model = adapted(folder, method).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    curve = {"trainable": sum(p.numel() for p in parameters), "loss": [], "gradNorm": []}
    started = time.time()
    for step in range(STEPS):
        batch = records[step * BATCH : (step + 1) * BATCH]
        longest = max(map(len, batch))
        ids = torch.zeros(BATCH, longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, record in enumerate(batch):
            n = len(record)
            ids[row, :n], mask[row, :n], labels[row, :n] = torch.tensor(record), 1, torch.tensor(record)
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        schedule.step()
        curve["loss"].append(float(f"{loss.item():.9g}"))
        curve["gradNorm"].append(float(f"{length.item():.7g}"))
        print(f"{method} {step} loss {loss.item():.5f} norm {length.item():.4f} {time.time() - started:.0f} s", flush=True)
    curve["seconds"] = round(time.time() - started, 1)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("/work/models/SmolLM2-135M-Instruct"))
    parser.add_argument(
        "--data", type=Path, default=Path("/work/shared/data/llm-adapters/ft-training_set/commonsense_18k.json")
    )
    parser.add_argument("--methods", default="lora,sbora-fa")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    records = [encode(tokenizer, r) for r in json.loads(args.data.read_text())[: STEPS * BATCH]]
    flat = np.array([t for r in records for t in r], dtype="<i4")
    a0 = lora_start(1, 576).reshape(-1)[:6]
    out = {
        "about": "PEFT in float32, 1 thread: loss before each step, gradient norm before clipping. Records 0..199 of the data "
        "in file order, 4 a step; AdamW(.9,.999,1e-8, wd 0), linear schedule over 50 steps with 10 of warm-up (the "
        "first has lr 0), dropout 0, loss = mean over all labels of the batch (every token but a record's first).",
        "start": "B = 0. Modules are numbered m = 0,1,... layer by layer, q,k,v,up,down. LoRA: element i of row-major "
        "A[32,in] = low + (high-low)*(word+0.5)/2^32 rounded to float32, high = -low = 1/sqrt(in), word = lane i%4 of "
        "Philox4x32-10 at counter (i/4,0,0,0), key m+1. SBoRA-FA: index[j] = (17*j + 5*m) mod in.",
        "loraA_m1_first6": [float(v) for v in a0],
        "rank": RANK,
        "alpha": ALPHA,
        "steps": STEPS,
        "batch": BATCH,
        "cutoff": CUTOFF,
        "peakLr": PEAK,
        "warmup": WARMUP,
        "clip": CLIP,
        "targets": TARGETS,
        "model": fingerprint(args.model),
        "data": {"file": args.data.name, "sha256": hashlib.sha256(args.data.read_bytes()).hexdigest()},
        "tokens": {
            "lengths": [len(r) for r in records],
            "sha256Int32le": hashlib.sha256(flat.tobytes()).hexdigest(),
            "firstRecord": records[0],
        },
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
        "machine": f"{platform.machine()}, 1 thread, shared",
        "runs": {},
    }
    for method in args.methods.split(","):
        out["runs"][method] = run(args.model, method, records)
    lines = [f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in out.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
