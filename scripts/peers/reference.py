"""A LLaMA in plain torch, any dtype, with every adapter kind of protocol §1: the float64 oracle behind the golden files.

Written from the formulas, not from transformers: no casts, no caches, one sequence at a time. make_goldens.py holds it
against transformers and PEFT before anything is saved.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

TARGETS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj"]
ALL_LINEARS = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
KINDS = ["lora", "dora", "lora-fa", "oa", "sbora-fa", "sbora-fb"]
"""Which factors a kind trains; the others are given and frozen."""
TRAINED = {
    "lora": ["A", "B"],
    "dora": ["A", "B", "m"],
    "lora-fa": ["B"],
    "oa": ["B"],
    "sbora-fa": ["B"],
    "sbora-fb": ["A"],
}


def width(config: dict, module: str) -> tuple[int, int]:
    """(in, out) of a linear by its name inside a layer."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    key_value = head * config["num_key_value_heads"]
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, key_value),
        "v_proj": (hidden, key_value),
        "o_proj": (hidden, hidden),
        "gate_proj": (hidden, ffn),
        "up_proj": (hidden, ffn),
        "down_proj": (ffn, hidden),
    }[module.split(".")[-1]]


def frequencies(config: dict) -> torch.Tensor:
    """Inverse RoPE frequencies [head/2] in float64, llama3-scaled where the config says so."""
    head = config["hidden_size"] // config["num_attention_heads"]
    inverse = config["rope_theta"] ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    scaling = config.get("rope_scaling")
    if scaling is None:
        return inverse
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    scaled = []
    for frequency in inverse.tolist():
        wavelength = 2 * math.pi / frequency
        if wavelength > context / low:
            scaled.append(frequency / factor)
        elif wavelength < context / high:
            scaled.append(frequency)
        else:
            smooth = (context / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * frequency / factor + smooth * frequency)
    return torch.tensor(scaled, dtype=torch.float64)


def rotate(x: torch.Tensor, config: dict) -> torch.Tensor:
    """RoPE on x[T,heads,head], positions 0..T-1; halves, not pairs."""
    angles = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * frequencies(config)[None, :]
    cos, sin = (f(torch.cat((angles, angles), 1)).to(x.dtype)[:, None, :] for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), -1) * sin


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


class Adapters:
    """Factors of one kind by `layers.<i>.<module>` -> {A, B, m, index}, and the formula of protocol §1 at p = 0."""

    def __init__(self, kind: str, factors: dict[str, dict[str, torch.Tensor]], scaling: float):
        self.kind, self.factors, self.scaling = kind, factors, scaling

    def __call__(self, site: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = x @ weight.T
        f = self.factors.get(site)
        if f is None:
            return y
        s = self.scaling
        if self.kind in ("lora", "lora-fa", "oa"):
            return y + s * (x @ f["A"].T @ f["B"].T)
        if self.kind == "dora":
            moved = weight + s * (f["B"] @ f["A"])
            gain = f["m"] / moved.pow(2).sum(1).sqrt().detach()
            return gain * (x @ moved.T)
        if self.kind == "sbora-fa":
            return y + s * (x[:, f["index"].long()] @ f["B"].T)
        if self.kind == "sbora-fb":
            return y.index_add(1, f["index"].long(), s * (x @ f["A"].T))
        raise ValueError(self.kind)

    def trained(self) -> dict[str, torch.Tensor]:
        return {f"{site}.{name}": f[name] for site, f in self.factors.items() for name in TRAINED[self.kind]}


def plain(_site: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight.T


def logits(weights: dict[str, torch.Tensor], config: dict, ids: list[int], linear=plain) -> torch.Tensor:
    """Logits [T,V] of one sequence. `weights` by Hugging Face names; a missing lm_head is the embedding."""
    heads, key_values = config["num_attention_heads"], config["num_key_value_heads"]
    head = config["hidden_size"] // heads
    eps, count = config["rms_norm_eps"], len(ids)
    x = weights["model.embed_tokens.weight"][torch.tensor(ids)]
    mask = torch.full((count, count), -torch.inf, dtype=x.dtype).triu(1)
    for i in range(config["num_hidden_layers"]):

        def apply(module: str, value: torch.Tensor) -> torch.Tensor:
            return linear(f"layers.{i}.{module}", value, weights[f"model.layers.{i}.{module}.weight"])

        n = norm(x, weights[f"model.layers.{i}.input_layernorm.weight"], eps)
        q = rotate(apply("self_attn.q_proj", n).view(count, heads, head), config)
        k = rotate(apply("self_attn.k_proj", n).view(count, key_values, head), config)
        v = apply("self_attn.v_proj", n).view(count, key_values, head)
        k, v = (t.repeat_interleave(heads // key_values, dim=1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(head) + mask
        o = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(count, heads * head)
        x = x + apply("self_attn.o_proj", o)
        n = norm(x, weights[f"model.layers.{i}.post_attention_layernorm.weight"], eps)
        x = x + apply("mlp.down_proj", F.silu(apply("mlp.gate_proj", n)) * apply("mlp.up_proj", n))
    x = norm(x, weights["model.norm.weight"], eps)
    return x @ weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).T


def losses(values: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Negative log-likelihood [T-1] of every token but the first."""
    return F.cross_entropy(values[:-1], torch.tensor(ids[1:]), reduction="none")


def batch_loss(weights, config, sequences, linear=plain) -> torch.Tensor:
    """Mean over all label tokens of the batch; every token but the first of a sequence is a label."""
    total = torch.cat([losses(logits(weights, config, ids, linear), ids) for ids in sequences])
    return total.sum() / total.numel()


def philox(counters: np.ndarray, key: int) -> np.ndarray:
    """Philox4x32-10 (Salmon et al. 2011): words [n,4] of counters (c, 0, 0, 0), c = counters[n]."""
    mask = np.uint64(0xFFFFFFFF)
    lanes = [counters.astype(np.uint64)] + [np.zeros(len(counters), np.uint64) for _ in range(3)]
    low, high = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = lanes[0] * np.uint64(0xD2511F53)
        p1 = lanes[2] * np.uint64(0xCD9E8D57)
        lanes = [
            (p1 >> np.uint64(32)) ^ lanes[1] ^ np.uint64(low),
            p1 & mask,
            (p0 >> np.uint64(32)) ^ lanes[3] ^ np.uint64(high),
            p0 & mask,
        ]
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(lanes, 1)


def uniform(count: int, low: float, high: float, key: int) -> np.ndarray:
    """float32 [count]: low + (high-low)·(word+0.5)/2^32 in float64, rounded once; element i is lane i%4 of counter i/4."""
    words = philox(np.arange((count + 3) // 4), key).reshape(-1)[:count]
    return (low + (high - low) * ((words.astype(np.float64) + 0.5) / 2.0**32)).astype(np.float32)


assert [int(w) for w in philox(np.arange(1), 0)[0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
