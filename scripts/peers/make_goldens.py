"""Tiny LLaMA models with golden logits, gradients, adapters, training curves and beam search -> src/model/testdata/.

Truth is float64 from reference.py; transformers and PEFT must agree with it before anything is written.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, get_linear_schedule_with_warmup
from transformers.models.llama import modeling_llama

import reference
from beam import beam_search
from reference import ALL_LINEARS, KINDS, TARGETS, TRAINED, Adapters, batch_loss, logits, losses, width

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
OUT = Path(__file__).resolve().parents[2] / "src/model/testdata"
VERSIONS = {
    "python": platform.python_version(),
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "peft": peft.__version__,
    "numpy": np.__version__,
}
COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
    "use_cache": True,
}
MODELS = {
    "gqa": {
        **COMMON,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "vocab_size": 101,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "rope_scaling": None,
    },
    "llama3": {
        **COMMON,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 112,
        "vocab_size": 97,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
}
LENGTHS = {"gqa": [2, 17, 40], "llama3": [5, 17, 72]}
SEEDS = {"gqa": 11, "llama3": 12}
worst: dict[str, float] = {}


def check(name: str, ours, theirs, limit: float) -> float:
    """Asserts max |a-b| / max(1, max |b|) <= limit; remembers the worst by name."""
    ours, theirs = (torch.as_tensor(t, dtype=torch.float64).detach() for t in (ours, theirs))
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    difference = float((ours - theirs).abs().max() / max(1.0, float(theirs.abs().max())))
    assert difference <= limit, f"{name}: {difference} > {limit}"
    worst[name] = max(worst.get(name, 0.0), difference)
    return difference


def digits(value: float, count: int = 12) -> float:
    return float(f"{value:.{count}g}")


def write_json(path: Path, value: dict) -> None:
    """One line a top-level entry: readable in a diff, small on disk."""
    lines = [f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({k: narrow(v) for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # save_file leaves 0600


def narrow(t: torch.Tensor) -> torch.Tensor:
    t = t.detach().clone().contiguous()
    return t if t.dtype == torch.int32 else t.float()


# --- models -----------------------------------------------------------------------------------------------------------


def make_weights(config: dict, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float, mean: float = 0.0) -> torch.Tensor:
        return torch.from_numpy((mean + std * rng.standard_normal(shape)).astype(np.float32))

    hidden = config["hidden_size"]
    weights = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, std=0.3)}
    for i in range(config["num_hidden_layers"]):
        for module in ALL_LINEARS:
            fan_in, fan_out = width(config, module)
            std = 0.25 if module.endswith(("q_proj", "k_proj")) else 0.15
            weights[f"model.layers.{i}.{module}.weight"] = normal(fan_out, fan_in, std=std)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{i}.{name}.weight"] = normal(hidden, std=0.2, mean=1.0)
    weights["model.norm.weight"] = normal(hidden, std=0.2, mean=1.0)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = normal(config["vocab_size"], hidden, std=0.25)
    return weights


def exact_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def exact_rotary(self, x, position_ids):
    angles = position_ids[..., None].double() * self.exact_frequencies
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def peer(folder: Path, config: dict, double: bool) -> LlamaForCausalLM:
    """transformers' model. In float64 its casts to float32 (norms, rotary table) are replaced, on this object alone."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    rotary = model.model.rotary_emb
    check("HF rope frequencies, float32", reference.frequencies(config), rotary.inv_freq, 1e-6)
    if double:
        model = model.double()
        rotary.exact_frequencies = reference.frequencies(config)
        rotary.forward = exact_rotary.__get__(rotary)
        for module in model.modules():
            if isinstance(module, modeling_llama.LlamaRMSNorm):
                module.forward = exact_norm.__get__(module)
    return model


def peer_loss(model, sequences: list[list[int]]) -> torch.Tensor:
    """Right-padded batch. float32: transformers' own loss; float64: the same mean, without its cast to float32."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        n = len(sequence)
        ids[row, :n], mask[row, :n], labels[row, :n] = torch.tensor(sequence), 1, torch.tensor(sequence)
    if next(model.parameters()).dtype == torch.float32:
        return model(input_ids=ids, attention_mask=mask, labels=labels).loss
    values = model(input_ids=ids, attention_mask=mask).logits
    return F.cross_entropy(values[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def model_goldens(name: str, config: dict, sequences: list[list[int]]) -> None:
    folder = OUT / name
    weights = {k: v.double().requires_grad_() for k, v in load_file(folder / "model.safetensors").items()}
    f32, f64 = peer(folder, config, False), peer(folder, config, True)
    tensors: dict[str, torch.Tensor] = {}
    peer_error = 0.0
    for i, ids in enumerate(sequences):
        value = logits(weights, config, ids)
        tensors[f"seq{i}/logits"] = value
        tensors[f"seq{i}/nll"] = losses(value, ids)
        with torch.no_grad():
            check(f"{name} logits, HF float64", f64(torch.tensor([ids])).logits[0], value, 1e-11)
            theirs = f32(torch.tensor([ids])).logits[0].double()
        check(f"{name} logits, HF float32", theirs, value, 1e-4)
        peer_error = max(peer_error, float((theirs - value.detach()).abs().max()))
    loss = batch_loss(weights, config, sequences)
    loss.backward()
    for model, kind, limit in ((f32, "float32", 1e-4), (f64, "float64", 1e-11)):
        theirs = peer_loss(model, sequences)
        check(f"{name} loss, HF {kind}", theirs, loss, limit)
        theirs.backward()
        grads = {k: p.grad for k, p in model.named_parameters()}
        assert grads.keys() == weights.keys()
        for key, w in weights.items():
            check(f"{name} gradients, HF {kind}", grads[key], w.grad, limit)
    for key, w in weights.items():
        tensors[f"grad/{key}"] = w.grad
    write_tensors(folder / "golden.safetensors", tensors)
    write_json(
        folder / "golden.json",
        {
            "about": "float64 truth: logits per position, nll of token t+1 at position t, loss = mean over all "
            "labels of the three sequences, gradients of that loss (tied embedding: head + lookup summed).",
            "versions": VERSIONS,
            "sequences": sequences,
            "labels": sum(len(s) - 1 for s in sequences),
            "loss": digits(float(loss.detach()), 15),
            "peerMaxAbsLogitError": digits(peer_error, 3),
        },
    )


# --- adapters ---------------------------------------------------------------------------------------------------------


def make_factors(kind: str, config: dict, weights: dict, targets: list[str], rank: int, seed: int) -> dict:
    """Values as after some training, rounded to float32 before anything is computed from them."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float) -> torch.Tensor:
        return torch.from_numpy((std * rng.standard_normal(shape)).astype(np.float32)).double()

    sites = {}
    for i in range(config["num_hidden_layers"]):
        for module in targets:
            fan_in, fan_out = width(config, module)
            f: dict[str, torch.Tensor] = {}
            if kind in ("lora", "dora", "lora-fa"):
                bound = fan_in**-0.5
                f["A"] = torch.from_numpy(rng.uniform(-bound, bound, (rank, fan_in)).astype(np.float32)).double()
            elif kind == "oa":
                q, _ = np.linalg.qr(rng.standard_normal((fan_in, rank)))
                f["A"] = torch.from_numpy(np.ascontiguousarray(q.T).astype(np.float32)).double()
            elif kind == "sbora-fb":
                f["A"] = normal(rank, fan_in, std=0.05)
            if kind != "sbora-fb":
                f["B"] = normal(fan_out, rank, std=0.1)
            if kind.startswith("sbora"):
                drawn = rng.permutation(fan_in if kind == "sbora-fa" else fan_out)[:rank]
                f["index"] = torch.from_numpy(drawn.astype(np.int32))
            if kind == "dora":
                lengths = weights[f"model.layers.{i}.{module}.weight"].detach().norm(dim=1)
                f["m"] = (lengths * (1 + normal(fan_out, std=0.15))).float().double()
            sites[f"layers.{i}.{module}"] = f
    return sites


def peer_adapted(folder: Path, config: dict, adapters: Adapters, targets: list[str], rank: int, alpha: float, double=True):
    """The same adapters in PEFT: SBoRA as LoRA with a one-hot factor. Gives the model and its factor parameters."""
    kind = adapters.kind
    options = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=[t.split(".")[-1] for t in targets],
        use_dora=kind == "dora",
        bias="none",
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(peer(folder, config, double), options)
    if double:
        model = model.double()
    parameters = dict(model.named_parameters())
    trained = {}
    for site, f in adapters.factors.items():
        fan_in, fan_out = width(config, site)
        values = dict(f)
        if "index" in f:
            hot = F.one_hot(f["index"].long(), fan_in if kind == "sbora-fa" else fan_out).double()
            values |= {"A": hot} if kind == "sbora-fa" else {"B": hot.T}
        for factor, key in (("A", "lora_A"), ("B", "lora_B"), ("m", "lora_magnitude_vector")):
            full = f"base_model.model.model.{site}.{key}.default.weight"
            if factor not in values:
                assert full not in parameters
                continue
            parameters[full].data.copy_(values[factor])
            parameters[full].requires_grad_(factor in TRAINED[kind])
            if factor in TRAINED[kind]:
                trained[f"{site}.{factor}"] = parameters[full]
    assert {id(p) for p in parameters.values() if p.requires_grad} == {id(p) for p in trained.values()}
    return model, trained


def adapter_goldens(name: str, config: dict, sequences: list[list[int]]) -> None:
    folder = OUT / name
    weights = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}
    tensors: dict[str, torch.Tensor] = {}
    sets: dict[str, dict] = {}
    kept = [0, 1]
    for number, (label, kind, targets, rank) in enumerate(
        [(k, k, TARGETS, 4) for k in KINDS] + [("lora-all", "lora", ALL_LINEARS, 3)]
    ):
        alpha = 8
        adapters = Adapters(kind, make_factors(kind, config, weights, targets, rank, 100 + number), alpha / rank)
        for site, f in adapters.factors.items():
            for factor, value in f.items():
                tensors[f"{label}/{site}.{factor}"] = value
        trained = adapters.trained()
        for value in trained.values():
            value.requires_grad_()
        loss = batch_loss(weights, config, sequences, adapters)
        loss.backward()
        model, theirs = peer_adapted(folder, config, adapters, targets, rank, alpha)
        their_loss = peer_loss(model, sequences)
        their_loss.backward()
        check(f"{label} loss, PEFT float64", their_loss, loss, 1e-11)
        assert theirs.keys() == trained.keys()
        for key, value in trained.items():
            check(f"{label} gradients, PEFT float64", theirs[key].grad, value.grad, 1e-11)
            site, factor = key.rsplit(".", 1)
            tensors[f"{label}/{site}.d{factor}"] = value.grad
        with torch.no_grad():
            for i, ids in enumerate(sequences):
                value = logits(weights, config, ids, adapters)
                check(f"{label} logits, PEFT float64", model(torch.tensor([ids])).logits[0], value, 1e-11)
                if i in kept:
                    tensors[f"{label}/seq{i}/logits"] = value
                if kind == "oa":
                    for f in adapters.factors.values():
                        check("oa rows orthonormal", f["A"] @ f["A"].T, torch.eye(rank), 1e-6)
        small, _ = peer_adapted(folder, config, adapters, targets, rank, alpha, double=False)
        check(f"{label} loss, PEFT float32", peer_loss(small, sequences), loss, 1e-5)
        sets[label] = {
            "kind": kind,
            "rank": rank,
            "alpha": alpha,
            "targets": targets,
            "loss": digits(float(loss.detach()), 15),
            "trained": TRAINED[kind],
        }
    write_tensors(folder / "adapters.safetensors", tensors)
    write_json(
        folder / "adapters.json",
        {
            "about": "Factors away from their start, on the sequences of golden.json: <set>/layers.<i>.<module>.<A|B|m|"
            "index> in, .dA .dB .dm out (gradients of the mean loss, DoRA's norm detached), <set>/seq<0|1>/logits.",
            "sets": sets,
        },
    )


# --- training curves --------------------------------------------------------------------------------------------------


def make_batches(config: dict, count: int) -> list[list[list[int]]]:
    """Batches of 4 uneven sequences that follow a rule with some noise, so that there is something to learn."""
    rng = np.random.default_rng(77)
    vocabulary = config["vocab_size"]
    batches = []
    for _ in range(count):
        batch = []
        for _ in range(4):
            ids = [int(rng.integers(3, vocabulary))]
            for _ in range(int(rng.integers(1, 20))):
                noise = rng.random() < 0.15
                ids.append(int(rng.integers(3, vocabulary)) if noise else 3 + (5 * ids[-1] + 7) % 31)
            batch.append(ids)
        batches.append(batch)
    return batches


def train(parameters: list[torch.Tensor], loss_of, batches, lr: float, warmup: int) -> dict:
    """The Trainer's step: AdamW, clip at 1.0, linear schedule (its first step has lr 0)."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    curve = {"loss": [], "gradNorm": [], "lr": []}
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        curve["loss"].append(float(loss.detach()))
        curve["gradNorm"].append(float(length))
        curve["lr"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return curve


def curve_goldens(name: str, config: dict) -> None:
    folder = OUT / name
    weights = load_file(folder / "model.safetensors")
    batches = make_batches(config, 50)
    tensors: dict[str, torch.Tensor] = {}
    runs = {}

    def record(label: str, settings: dict, f32: dict, ours: dict, peer64: dict) -> None:
        check(f"{label} curve, HF/PEFT float64", peer64["loss"], ours["loss"], 1e-8)
        check(f"{label} curve, HF/PEFT float32", f32["loss"], ours["loss"], 1e-4)
        runs[label] = {
            **settings,
            "lr": [digits(v) for v in ours["lr"]],
            "loss64": [digits(v) for v in ours["loss"]],
            "loss32": [digits(v, 9) for v in f32["loss"]],
            "gradNorm64": [digits(v, 8) for v in ours["gradNorm"]],
        }

    for number, (label, rank) in enumerate([("lora", 4), ("sbora-fa", 8)]):
        alpha = 2 * rank
        start = make_factors(label, config, weights, TARGETS, rank, 200 + number)
        for site, f in start.items():
            f["B"].zero_()
            for factor in ("A", "index"):
                if factor in f:
                    tensors[f"{label}/{site}.{factor}"] = f[factor].clone()

        def adapters() -> Adapters:
            return Adapters(label, {s: {k: v.clone() for k, v in f.items()} for s, f in start.items()}, alpha / rank)

        base = {k: v.double() for k, v in weights.items()}
        own = adapters()
        parameters = list(own.trained().values())
        for p in parameters:
            p.requires_grad_()
        ours = train(parameters, lambda b: batch_loss(base, config, b, own), batches, 1e-2, 5)
        theirs = {}
        for double in (False, True):
            model, trained = peer_adapted(folder, config, adapters(), TARGETS, rank, alpha, double)
            theirs[double] = train(list(trained.values()), lambda b: peer_loss(model, b), batches, 1e-2, 5)
        settings = {"rank": rank, "alpha": alpha, "steps": 50, "peakLr": 1e-2, "warmup": 5, "targets": TARGETS}
        record(label, settings, theirs[False], ours, theirs[True])

    full = {k: v.double().requires_grad_() for k, v in weights.items()}
    ours = train(list(full.values()), lambda b: batch_loss(full, config, b), batches[:20], 1e-3, 5)
    theirs = {}
    for double in (False, True):
        model = peer(folder, config, double)
        theirs[double] = train(list(model.parameters()), lambda b: peer_loss(model, b), batches[:20], 1e-3, 5)
    record("full", {"steps": 20, "peakLr": 1e-3, "warmup": 5}, theirs[False], ours, theirs[True])

    write_tensors(folder / "curves.safetensors", tensors)
    write_json(
        folder / "curves.json",
        {
            "about": "loss before each step; loss64: float64, loss32: PEFT / transformers in float32. AdamW(.9,.999,"
            "1e-8, wd 0), clip 1.0 (scale = min(1, 1/(norm+1e-6))), linear schedule over `steps` with 5 warm-up steps, "
            "lr[i] used at step i, dropout 0, loss = mean over all labels of the batch. B starts at 0, A and index "
            "stand in curves.safetensors; full trains every weight of the folder on the first 20 batches.",
            "clip": 1.0,
            "runs": runs,
            "batches": batches,
        },
    )


# --- beam search ------------------------------------------------------------------------------------------------------


def beam_goldens(name: str, config: dict) -> None:
    folder = OUT / name
    beams, limit = 4, 12
    weights = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}
    chosen = choose_cases(beam_pool(weights, config, beams, limit))
    model = peer(folder, config, False)
    cases, differing = [], []
    for case in chosen:
        prompt, eos = case["prompt"], case["eos"]
        ids, score = transformers_beams(model, prompt, beams, limit, eos)
        closest = case.pop("closest")
        case |= {"score": digits(case["score"]), "closest": digits(closest, 3)}
        if ids == case["ids"]:
            check("beam score, HF float32", score, case["score"], 1e-5)
        else:
            differing.append((case, ids, score))
            case["transformers"] = {"ids": ids, "score": digits(score, 8)}
        cases.append(case)
    print(f"beam search: {len(differing)} of {len(cases)} differ from transformers", *differing, sep="\n  ")
    write_json(
        folder / "beam.json",
        {
            "about": "4-beam search by the text of settled 23 in float64; ids are generated ids with EOS, score = sum of "
            "log-probabilities / length, steps = tokens generated before it stopped. closest: smallest gap between "
            "candidates met. Where transformers answers otherwise its answer stands beside.",
            "beams": beams,
            "maxNewTokens": limit,
            "cases": cases,
        },
    )


def beam_pool(weights: dict, config: dict, beams: int, limit: int, prompts: int = 40) -> list[dict]:
    """Searches from random prompts, with each token as EOS that is met among the best candidates on the way."""
    rng = np.random.default_rng(5)
    seen: dict[tuple[int, ...], np.ndarray] = {}

    @torch.no_grad()
    def step(ids: tuple[int, ...]) -> np.ndarray:
        if ids not in seen:
            seen[ids] = logits(weights, config, list(ids))[-1].log_softmax(-1).numpy()
        return seen[ids]

    pool = []
    for _ in range(prompts):
        prompt = [int(t) for t in rng.integers(0, config["vocab_size"], int(rng.integers(1, 21)))]
        met: set[int] = set()

        def watched(ids: tuple[int, ...]) -> np.ndarray:
            values = step(ids)
            met.update(int(t) for t in np.argsort(-values)[:2])
            return values

        beam_search(watched, prompt, beams, limit, eos=-1)
        for eos in sorted(met):
            pool.append({"prompt": prompt, "eos": eos, **beam_search(step, prompt, beams, limit, eos)})
    return pool


def choose_cases(pool: list[dict]) -> list[dict]:
    """Ten without near ties, no prompt twice: stopped early; ended by EOS at the limit; EOS met but not in the best."""

    def sort_of(case: dict) -> str:
        ended = case["ids"][-1] == case["eos"]
        return "early" if case["stoppedEarly"] else "ended" if ended else "unfinished"

    wanted = {"early": 5, "ended": 3, "unfinished": 2}
    chosen: list[dict] = []
    for case in sorted(pool, key=lambda c: (-len({*c["ids"]}), c["eos"])):
        if case["closest"] < 1e-4 or wanted[sort_of(case)] == 0 or any(case["prompt"] == c["prompt"] for c in chosen):
            continue
        if any((len(case["ids"]), case["steps"]) == (len(c["ids"]), c["steps"]) for c in chosen if c["stoppedEarly"]):
            continue
        wanted[sort_of(case)] -= 1
        chosen.append(case)
    assert not any(wanted.values()), wanted
    return chosen


def transformers_beams(model, prompt: list[int], beams: int, limit: int, eos: int) -> tuple[list[int], float]:
    answer = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams,
        early_stopping=False,
        max_new_tokens=limit,
        do_sample=False,
        length_penalty=1.0,
        eos_token_id=eos,
        pad_token_id=0 if eos else 1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return answer.sequences[0, len(prompt) :].tolist(), float(answer.sequences_scores[0])


def main() -> None:
    started = time.time()
    for name, config in MODELS.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(folder / "model.safetensors", make_weights(config, SEEDS[name]))
        rng = np.random.default_rng(SEEDS[name] + 1000)
        sequences = [[int(t) for t in rng.integers(0, config["vocab_size"], n)] for n in LENGTHS[name]]
        model_goldens(name, config, sequences)
        print(f"{name}: model {time.time() - started:.1f} s", flush=True)
        if name == "gqa":
            adapter_goldens(name, config, sequences)
            print(f"{name}: adapters {time.time() - started:.1f} s", flush=True)
            curve_goldens(name, config)
            print(f"{name}: curves {time.time() - started:.1f} s", flush=True)
            beam_goldens(name, config)
    for name, value in worst.items():
        print(f"{value:9.2e}  {name}")
    for path in sorted(OUT.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:8d}  {path.relative_to(OUT)}")
    print(f"{time.time() - started:.1f} s", VERSIONS, file=sys.stderr)


if __name__ == "__main__":
    main()
