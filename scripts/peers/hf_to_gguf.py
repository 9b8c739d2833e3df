"""A LLaMA folder with bf16 weights as one GGUF file with the same bits, without a vocabulary: for scripts/bench.ts decode.

    python hf_to_gguf.py DIR FILE.gguf

Standard library only. q and k rows change places as llama.cpp's RoPE wants them: [head, half, 2] -> [head, 2, half].
"""

import json
import struct
import sys
from pathlib import Path

F32, BF16, ALIGNMENT, MOSTLY_BF16 = 0, 30, 32, 32
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def read_tensors(folder: Path) -> dict:
    """name -> (dtype, shape, file, first byte, bytes)."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            for name, entry in json.loads(file.read(size)).items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    tensors[name] = (entry["dtype"], entry["shape"], path, 8 + size + start, end - start)
    if not tensors:
        raise SystemExit(f"{folder}: there is no .safetensors file")
    return tensors


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return f"{TOP[stem]}.weight"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{NAMES[part]}.weight"


def interleave(data: bytes, heads: int, rows: int) -> bytes:
    """Rows of every head: i and i + half become neighbours."""
    row, half = len(data) // rows, rows // heads // 2
    order = (head * 2 * half + pair + side * half for head in range(heads) for pair in range(half) for side in (0, 1))
    return b"".join(data[i * row : (i + 1) * row] for i in order)


def widened(data: bytes) -> bytes:
    """bf16 as f32."""
    return b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(key: str, value) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def convert(folder: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    size = config.get("head_dim") or config["hidden_size"] // heads
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", "default") != "default":
        raise SystemExit(f"{folder}: rope scaling {scaling} is not converted; it is no peer for this model")
    fields = {
        "general.architecture": "llama",
        "general.name": folder.name,
        "general.file_type": MOSTLY_BF16,
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": size,
        "llama.attention.value_length": size,
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": size,
        "llama.rope.freq_base": float(theta),
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "no_vocab",
    }
    tensors = read_tensors(folder)
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    infos, offset = [], 0
    for name, (dtype, shape, _, _, length) in tensors.items():
        if dtype != "BF16":
            raise SystemExit(f"{folder}: {name} is {dtype}; expected BF16, so that both sides hold the same bits")
        vector = len(shape) == 1
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        infos.append(text(gguf_name(name)) + dimensions + struct.pack("<IQ", F32 if vector else BF16, offset))
        offset += -(-(2 * length if vector else length) // ALIGNMENT) * ALIGNMENT
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields))
    header += b"".join(field(k, v) for k, v in fields.items()) + b"".join(infos)
    with target.open("wb") as out:
        out.write(header + b"\0" * (-len(header) % ALIGNMENT))
        for name, (_, shape, path, start, length) in tensors.items():
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(length)
            if len(shape) == 1:
                data = widened(data)
            elif name.endswith("q_proj.weight"):
                data = interleave(data, heads, shape[0])
            elif name.endswith("k_proj.weight"):
                data = interleave(data, kv_heads, shape[0])
            out.write(data + b"\0" * (-len(data) % ALIGNMENT))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
