"""NF4 as bitsandbytes writes it: its codes, scales, state and values for small matrices, and one small quantized model.

    pip install bitsandbytes
    python nf4_goldens.py [--model /work/models/smollm2-135m]

-> src/formats/testdata/nf4.safetensors and src/formats/testdata/nf4-model/. For every case NAME of the first file:
NAME.input (what was quantized), and under NAME.single.weight and NAME.double.weight bitsandbytes' own keys without and
with double quantization, NAME.single.values what it dequantizes them to, in the type of the state. scales.*: double
quantization alone, of every scale of a real matrix.

Values come from bitsandbytes' default implementation. Its AVX-512 one (0.50.2) takes another block's scale where a row
is a multiple of 16 but none of 64.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiling takes minutes

import bitsandbytes
import torch
import transformers
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors import safe_open
from safetensors.torch import save_file

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
OUT = Path(__file__).resolve().parents[2] / "src/formats/testdata"
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BOOK = functional.get_4bit_type("nf4", device="cpu")


def normal(shape: tuple[int, ...], seed: int, scale: float = 0.02) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def midpoints() -> torch.Tensor:
    """Every border between two codes, the floats beside it, and 1 so that the block's scale is 1."""
    middle = (BOOK[:-1] + BOOK[1:]) / 2
    low = torch.nextafter(middle, torch.tensor(-2.0))
    high = torch.nextafter(middle, torch.tensor(2.0))
    return torch.cat([middle, low, high, torch.ones(1), BOOK, -torch.ones(1), torch.zeros(1)])[:64].reshape(2, 32)


def denormals() -> torch.Tensor:
    rows = [normal((64,), 31, 1.0) * 10.0**power for power in (-45, -42, -39, -38, -37, 30)]
    rows.append(torch.full((64,), 1e-45))
    return torch.stack(rows)


def with_zero_blocks() -> torch.Tensor:
    values = normal((4, 96), 32)
    values.view(-1)[64:128] = 0
    values.view(-1)[320:] = 0
    values[0, 3] = -0.0
    return values


def real_matrix(model: Path) -> torch.Tensor:
    with safe_open(model / "model.safetensors", "pt") as file:
        return file.get_tensor("model.layers.4.self_attn.k_proj.weight")


def cases(real: torch.Tensor) -> dict[str, torch.Tensor]:
    made = {
        "one": normal((1, 1), 1),
        "odd": normal((5, 13), 2),  # 65 values: a full block, and one value alone in the last
        "phases": normal((7, 80), 3),  # rows start in the middle of blocks
        "blocks": normal((5, 128), 5),
        "large": normal((2, 192), 6, 300.0),
    }
    result = {
        f"{name}-{short}": values.to(dtype) for name, values in made.items() for short, dtype in TYPES.items()
    }
    result["midpoints-f32"] = midpoints()
    result["denormals-f32"] = denormals()
    result["zeros-f32"] = with_zero_blocks()
    result["real-bf16"] = real[:16].contiguous()
    return result


def quantized(values: torch.Tensor, double: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The state dict entries after "weight", and the dequantized values."""
    codes, state = functional.quantize_4bit(values, blocksize=64, compress_statistics=double, quant_type="nf4")
    back = dequantized(codes, state).reshape(values.shape)
    return {"": codes, **{f".{key}": value for key, value in state.as_dict(packed=True).items()}}, back


def dequantized(codes: torch.Tensor, state: functional.QuantState) -> torch.Tensor:
    scales = state.absmax
    if state.nested:
        scales = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return _dequantize_4bit_compute(codes.reshape(-1), scales, BOOK, 64, state.shape, state.dtype)


def write_cases(model: Path) -> None:
    tensors, real = {}, real_matrix(model)
    for name, values in cases(real).items():
        tensors[f"{name}.input"] = values
        for kind in ("single", "double"):
            if kind == "double" and name.split("-")[0] not in ("zeros", "denormals", "odd", "phases", "real"):
                continue
            entries, back = quantized(values, kind == "double")
            if kind == "single":
                tensors[f"{name}.single.values"] = back
            for key, value in entries.items():
                if key.endswith("quant_map") and name != "real-bf16":
                    continue  # the same everywhere
                tensors[f"{name}.{kind}.weight{key}"] = value
    _, state = functional.quantize_4bit(real, blocksize=64, quant_type="nf4")
    offset = state.absmax.mean()
    codes, second = functional.quantize_blockwise(state.absmax - offset, blocksize=256)
    tensors["scales.input"] = state.absmax
    tensors["scales.offset"] = offset[None]
    tensors["scales.absmax"] = codes
    tensors["scales.nested_absmax"] = second.absmax
    tensors["scales.values"] = functional.dequantize_blockwise(codes, second) + offset
    path = OUT / "nf4.safetensors"
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path,
              metadata={"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__})  # fmt: skip
    path.chmod(0o644)
    print(f"{path}: {path.stat().st_size} bytes, {len(tensors)} tensors")


def write_model() -> None:
    """A LLaMA of two layers, quantized while transformers loads it, and its logits."""
    folder = OUT / "nf4-model"
    plain = Path("/tmp/nf4-plain")
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(plain)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM.from_pretrained(plain, quantization_config=settings, dtype=torch.float32)
    model.save_pretrained(folder)
    # transformers may use the AVX-512 product, which is wrong at 96 columns: the truth from dequantized weights.
    exact = transformers.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32)
    for name, module in model.named_modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        state = module.weight.quant_state
        exact.get_submodule(name).weight.data = dequantized(module.weight.data, state).reshape(state.shape).float()
    ids = torch.tensor([[1, 5, 9, 60, 33, 2, 17, 44]])
    with torch.no_grad():
        logits = exact.double()(ids).logits[0]
    golden = {"ids": ids[0].tolist(), "last": logits[-1].tolist(), "bitsandbytes": bitsandbytes.__version__}
    (folder / "logits.json").write_text(json.dumps(golden) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
        print(file, file.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("/work/models/smollm2-135m"))
    args = parser.parse_args()
    write_cases(args.model)
    write_model()


if __name__ == "__main__":
    main()
