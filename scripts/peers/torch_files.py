"""Small files of torch.save in the layouts of the two official SBoRA repositories (protocol 1.8), for the tests of
src/formats/torch-zip.ts and src/adapters/folder.ts. Values are k / 64 for the k-th element, so that tests know them.

    python torch_files.py            writes src/formats/testdata/
"""

import json
from collections import OrderedDict
from pathlib import Path

import torch

OUT = Path(__file__).resolve().parents[2] / "src" / "formats" / "testdata"
PREFIX = "base_model.model.model.layers."
# the tiny golden model: hidden 48, feed-forward 80, 2 layers
SITES = {f"{i}.{name}": size for i in (0, 1) for name, size in {"self_attn.k_proj": (48, 16), "mlp.down_proj": (80, 48)}.items()}
RANK = 3


def ramp(*shape: int) -> torch.Tensor:
    return (torch.arange(torch.Size(shape).numel(), dtype=torch.float32) / 64).reshape(shape)


def save(folder: Path, tensors: dict, config: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "adapter_model.bin")
    common = {
        "base_model_name_or_path": "golden/gqa", "bias": "none", "enable_lora": None, "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 2 * RANK, "lora_dropout": 0.05, "merge_weights": False,
        "modules_to_save": None, "r": RANK, "target_modules": ["k_proj", "down_proj"], "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**common, **config}, indent=2) + "\n")


def main() -> None:
    fa, fb, dora, lora_fa = {}, {}, {}, {}
    for n, (site, (width, out)) in enumerate(SITES.items()):
        key = PREFIX + site
        fa[f"{key}.lora_A"] = torch.tensor([7 + n, 0, 5])
        fa[f"{key}.lora_B.weight"] = ramp(out, RANK)
        fb[f"{key}.lora_A.weight"] = ramp(RANK, width)
        fb[f"{key}.lora_B"] = torch.tensor([n, 15, 9])
        dora[f"{key}.lora_A.weight"] = ramp(RANK, width)
        dora[f"{key}.lora_B.weight"] = ramp(out, RANK)
        dora[f"{key}.weight_m_wdecomp.weight"] = 1 + ramp(out, 1)
        lora_fa[f"{key}.lora_A.weight"] = ramp(RANK, width).half()
        lora_fa[f"{key}.lora_B.weight"] = ramp(out, RANK).bfloat16()
    save(OUT / "official-sbora-fa", fa, {"peft_type": "SBORA", "adapter_name": "sbora_fa"})
    save(OUT / "official-dora", dora, {"peft_type": "DORA", "dora_simple": True, "Wdecompose_target_modules": None})
    # the 4-bit repository: a stock LORA config, the kind in the folder's name
    four = OUT / "official-4bit"
    save(four / "checkpoint-8" / "adapter_model" / "SB_FB_sampleMul", fb, {"peft_type": "LORA"})
    save(four / "checkpoint-9" / "adapter_model" / "lora_FA", lora_fa, {"peft_type": "LORA"})
    no_magnitude = {k: v for k, v in dora.items() if "wdecomp" not in k}
    save(four / "checkpoint-10" / "adapter_model" / "dora", no_magnitude, {"peft_type": "LORA"})
    # whatever else torch.save writes around plain tensors
    state = OrderedDict()
    state._metadata = OrderedDict({"": {"version": 1}})
    state["parameter"] = torch.nn.Parameter(ramp(2, 3))
    state["window"] = ramp(4, 3)[1:3]
    state["double"] = ramp(3).double()
    state["ints"] = torch.tensor([-1, 2**40])
    state["transposed"] = ramp(2, 3).T
    torch.save(state, OUT / "state-dict.bin")
    torch.save({k: v for k, v in state.items() if k != "transposed"}, OUT / "tensors.bin")
    torch.save({"epoch": 3, "model": {"w": ramp(2)}}, OUT / "checkpoint.bin")


if __name__ == "__main__":
    main()
