"""SmolLM2-135M-Instruct on 20 prompts: last logits and 200 greedy tokens from transformers in float32, 1 thread.

    python smollm2_goldens.py [--model /work/models/SmolLM2-135M-Instruct]

-> src/model/testdata/smollm2.json and smollm2-logits.safetensors. reference.py in float64 gives the truth beside.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import reference
from folder import as_reference_config, fingerprint

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
OUT = Path(__file__).resolve().parents[2] / "src/model/testdata"
TOP, STEPS, STRIDE = 50, 200, 16

EVALUATION = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n"
    "                ### Instruction:\n                {}\n\n                ### Response:\n                "
)
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS = [
    "The",
    "Once upon a time, in a small village by the sea,",
    "Q: What is 17 + 25?\nA:",
    "def fibonacci(n):\n    ",
    "The capital of France is",
    "import numpy as np\n\nx = np.zeros((3, 4))\nprint(",
    "1, 1, 2, 3, 5, 8, 13,",
    "It was the best of times, it was the worst of times,",
    "# Recipe for tomato soup\n\n## Ingredients\n\n-",
    "La langue française est",
    "日本の首都は",
    '{"name": "Ada", "born": 1815, "field": "',
    "Dear Sir or Madam,\n\nI am writing to",
    "Water boils at 100 degrees Celsius because",
    CHAT.format("What is the capital of Italy?"),
    CHAT.format("Write a haiku about rain."),
    CHAT.format("Explain in two sentences why the sky is blue."),
    EVALUATION.format(
        "Please answer the following question with true or false, question: can a penguin fly?\n\n"
        "Answer format: true/false"
    ),
    EVALUATION.format(
        "Please choose the correct answer to the question: Which of these is a source of light?\n\n"
        "Answer1: the moon Answer2: a candle Answer3: a mirror Answer4: a stone\n\n"
        "Answer format: answer1/answer2/answer3/answer4"
    ),
    EVALUATION.format("Tom has 3 boxes with 12 pencils each and gives 7 pencils away. How many pencils are left?"),
]


@torch.no_grad()
def greedy(model, ids: list[int]) -> tuple[torch.Tensor, list[int], list[float]]:
    """Last logits of the prompt, then STEPS tokens (past EOS too) with the gap between the best two logits."""
    value = torch.tensor([ids])
    cache, first, tokens, gaps = transformers.DynamicCache(), None, [], []
    for _ in range(STEPS):
        last = model(input_ids=value, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
        first = last if first is None else first
        best = last.topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        value = best.indices[:1][None]
    return first, tokens, gaps


def digits(value: float, count: int) -> float:
    return float(f"{value:.{count}g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("/work/models/SmolLM2-135M-Instruct"))
    args = parser.parse_args()
    started = time.time()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    config = as_reference_config(model.config)
    truth = {k: v.detach().double() for k, v in model.named_parameters()}
    cases, sampled = [], {}
    for number, text in enumerate(PROMPTS):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        last, tokens, gaps = greedy(model, ids)
        with torch.no_grad():
            exact = reference.logits(truth, config, ids)[-1]
        error = float((last.double() - exact).abs().max())
        best = last.topk(TOP).indices
        cases.append(
            {
                "text": text,
                "ids": ids,
                "topIds": best.tolist(),
                "top32": [digits(float(v), 9) for v in last[best]],
                "top64": [digits(float(v), 10) for v in exact[best]],
                "logsumexp64": digits(float(exact.logsumexp(0)), 12),
                "peerMaxAbsError": digits(error, 3),
                "greedy": tokens,
                "gaps": [digits(g, 3) for g in gaps],
            }
        )
        if number in (1, 14):
            sampled[f"prompt{number}/logits"] = last[::STRIDE].contiguous()
        print(f"{number:2d} {len(ids):3d} tokens, error {error:.1e}, least gap {min(gaps):.1e}, "
              f"{time.time() - started:.0f} s: {tokenizer.decode(tokens[:12])!r}", flush=True)  # fmt: skip
    head = {
        "about": "transformers, float32, 1 thread: top 50 of the last position's logits (top32; top64 = float64 truth of the "
        "same ids), log-sum-exp over the whole vocabulary in float64, 200 greedy tokens (it does not stop at EOS) "
        f"and the gap of the two best logits at each. smollm2-logits.safetensors: every {STRIDE}th logit (float32).",
        "model": fingerprint(args.model),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "stride": STRIDE,
        "peerMaxAbsError": max(c["peerMaxAbsError"] for c in cases),
    }
    lines = [f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in head.items()]
    rows = ",\n".join("  " + json.dumps(c, separators=(",", ":"), ensure_ascii=False) for c in cases)
    (OUT / "smollm2.json").write_text("{\n" + ",\n".join(lines) + ',\n "prompts": [\n' + rows + "\n ]\n}\n")
    save_file(sampled, OUT / "smollm2-logits.safetensors", metadata={"format": "pt"})
    (OUT / "smollm2-logits.safetensors").chmod(0o644)  # save_file leaves 0600
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
