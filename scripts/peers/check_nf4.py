"""An NF4 folder of ours in transformers and bitsandbytes on the CPU: it loads, and its logits are those of its values.

    bun run scripts/merge.ts --model DIR --adapter ADAPTER --out FOLDER --quantize nf4 --double-quant
    bun run scripts/unmerge.ts --model FOLDER --out PLAIN
    python check_nf4.py PLAIN [--ids 1,2,3] [--ours FILE]

transformers knows nothing of the lines beside the codes (.sbora_*), so a folder without them is compared. FILE: our
logits of the last position, one JSON array.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import bitsandbytes
import torch
import transformers
from bitsandbytes import functional

transformers.utils.logging.disable_progress_bar()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ids", default="504,3575,282,4649,314")
    parser.add_argument("--ours", type=Path)
    args = parser.parse_args()
    ids = torch.tensor([[int(i) for i in args.ids.split(",")]])
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
    linears = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert linears, "no linear was loaded in 4 bits"
    for parameter in model.parameters():  # transformers leaves what is not quantized in the folder's type
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    # Before the first forward pass, which packs the codes anew for the processor.
    types = sorted({str(m.weight.quant_state.dtype) for m in linears})
    dense = [functional.dequantize_4bit(m.weight.data, m.weight.quant_state).float() for m in linears]
    theirs = model(ids).logits[0, -1].float()
    for module, weight in zip(linears, dense, strict=True):
        module.forward = lambda x, w=weight: torch.nn.functional.linear(x.float(), w)
    exact = model(ids).logits[0, -1]
    largest = float(exact.abs().max())
    print(f"{len(linears)} linears in 4 bits, types {types}")
    print(f"transformers against its own dequantized values: {float((theirs - exact).abs().max()) / largest:.2e} of the largest")
    if args.ours:
        ours = torch.tensor(json.loads(args.ours.read_text()))
        print(f"ours against them: {float((ours - exact).abs().max()) / largest:.2e} of the largest")


if __name__ == "__main__":
    main()
