"""Our exports in the real packages, and theirs in ours: PEFT loads the adapter folders, transformers the merged models and GGUF files, gguf
reads the LoRA adapters. The truth is the float64 logits of src/model/testdata/gqa (made by make_goldens.py).

    python check_peft.py             runs golden-exports.ts into a temporary folder, prints a figure a check, fails beyond 1e-4
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from gguf.quants import dequantize, quantize
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GQA = ROOT / "src" / "model" / "testdata" / "gqa"
LIMIT = 1e-4  # settled 19
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
failures = 0


def report(what: str, figure: float, limit: float = LIMIT) -> None:
    global failures
    good = figure <= limit
    failures += not good
    print(f"{what:44} {figure:9.2e}  {'ok' if good else f'FAILED, limit {limit:g}'}")


def load(folder: Path, **more):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more).eval()


@torch.no_grad()
def logits(model, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0].double()


def check_adapters(out: Path) -> None:
    sets = json.loads((GQA / "adapters.json").read_text())["sets"]
    sequences = json.loads((GQA / "golden.json").read_text())["sequences"]
    truth = load_file(GQA / "adapters.safetensors")

    def error(model, label: str) -> float:
        difference = [
            (logits(model, sequences[i]) - truth[f"{label}/seq{i}/logits"].double().reshape(len(sequences[i]), -1)).abs().max()
            for i in (0, 1)
        ]
        return float(max(difference))

    for label in sets:
        for layout in ("peft", "saved-as-peft"):
            model = PeftModel.from_pretrained(load(GQA), out / label / layout)
            report(f"{label}: PEFT loads {layout}", error(model, label))
        report(f"{label}: PEFT's own merge", error(model.merge_and_unload(), label))
        report(f"{label}: transformers loads merged", error(load(out / label / "merged"), label))
        if label != "dora":
            report(f"{label}: gguf reads lora.gguf", lora_error(out / label), 0)


def check_import(out: Path) -> None:
    """Adapters that PEFT itself saved, merged by scripts/merge.ts."""
    ids = json.loads((GQA / "golden.json").read_text())["sequences"][2]
    patterns = {"rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 6}, "alpha_pattern": {"k_proj": 3}}
    kinds = {
        "LoRA": {},
        "rsLoRA": {"use_rslora": True},
        "DoRA": {"use_dora": True},
        "patterns": patterns,
        "patterns, rsLoRA": {**patterns, "use_rslora": True},
        "patterns, DoRA, one layer": {**patterns, "use_dora": True, "layers_to_transform": [1]},
        "regular expression": {"target_modules": r".*\.0\.mlp\.(up|down)_proj"},
    }
    for n, (kind, options) in enumerate(kinds.items()):
        torch.manual_seed(n)
        config = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "down_proj"], "task_type": "CAUSAL_LM"}
        model = get_peft_model(load(GQA), LoraConfig(**{**config, **options}))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data += 0.05 * torch.randn_like(parameter)
        adapter, merged = out / f"import-{n}", out / f"import-{n}-merged"
        model.save_pretrained(adapter)
        command = ["bun", "run", "scripts/merge.ts", "--model", str(GQA), "--adapter", str(adapter), "--out", str(merged)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        report(f"we merge PEFT's {kind}", float((logits(model, ids) - logits(load(merged), ids)).abs().max()))


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q and k."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def lora_error(folder: Path) -> float:
    reader = GGUFReader(folder / "lora.gguf")
    peft = load_file(folder / "peft" / "adapter_model.safetensors")
    config = json.loads((folder / "peft" / "adapter_config.json").read_text())
    base = json.loads((GQA / "config.json").read_text())
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    heads = {"q_proj": base["num_attention_heads"], "k_proj": base["num_key_value_heads"]}
    tensors = {t.name: dequantize(t.data, t.tensor_type).reshape(*reversed(t.shape.tolist())) for t in reader.tensors}
    assert reader.fields["general.type"].contents() == "adapter" and reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["adapter.lora.alpha"].contents() == config["lora_alpha"]
    assert len(tensors) == len(peft)
    worst = 0.0
    for key, value in peft.items():
        _, _, _, _, layer, _, module, factor, _ = key.split(".")
        expected = value.numpy()
        if factor == "lora_B" and module in heads:
            expected = permuted(expected, heads[module])
        ours = tensors[f"blk.{layer}.{names[module]}.weight.{factor.lower()}"]
        worst = max(worst, float(np.abs(ours - expected).max()))
    return worst


def check_models(out: Path) -> None:
    ids = list(range(5, 45))
    exact = load(out / "tiny")
    expected = logits(exact, ids)
    state = {k: v.numpy() for k, v in exact.state_dict().items()}
    for kind, limit in {"F32": LIMIT, "F16": 0.02, "BF16": 0.1, "Q8_0": 0.1}.items():
        model = load(out, gguf_file=f"tiny-{kind}.gguf")
        report(f"transformers loads tiny-{kind}.gguf", float((logits(model, ids) - expected).abs().max()), limit)
        reader = GGUFReader(out / f"tiny-{kind}.gguf")
        embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
        same = np.array_equal(np.asarray(embedding.data).view(np.uint8).reshape(-1),
                              quantize(state["model.embed_tokens.weight"], embedding.tensor_type).view(np.uint8).reshape(-1))
        report(f"tiny-{kind}.gguf: bytes as gguf quantizes", 0 if same else 1, 0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["bun", "run", str(ROOT / "scripts/peers/golden-exports.ts"), folder], check=True, cwd=ROOT)
        check_adapters(Path(folder))
        check_import(Path(folder))
        check_models(Path(folder))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
