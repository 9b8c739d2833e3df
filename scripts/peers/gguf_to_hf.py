"""A LLaMA GGUF as a Hugging Face folder, by transformers' own reader: the second opinion on ours.

    python gguf_to_hf.py FILE.gguf OUT [--dtype bf16]     convert
    python gguf_to_hf.py FILE.gguf OUT --compare DIR      convert, then hold DIR's weights and tokenizer against it
"""

import argparse
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


def tokenizer_of(file: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits every digit (`tokenizer.ggml.pre` = smollm)."""
    fields = GGUFReader(file).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3]
    )
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"))
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = fields["tokenizer.chat_template"].contents()
    return fast


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--compare", type=Path)
    args = parser.parse_args()
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = LlamaForCausalLM.from_pretrained(args.file.parent, gguf_file=args.file.name, dtype=torch.float32)
    args.out.mkdir(parents=True, exist_ok=True)
    # save_pretrained refuses a model that was read from a GGUF
    state = {k: v.detach().to(dtype).contiguous() for k, v in model.named_parameters()}
    save_file(state, args.out / "model.safetensors", metadata={"format": "pt"})
    config = LlamaConfig(**{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"})
    config.dtype, config.architectures = dtype, ["LlamaForCausalLM"]
    config.save_pretrained(args.out)
    tokenizer = tokenizer_of(args.file)
    tokenizer.save_pretrained(args.out)
    if args.compare:
        compare(args.out, args.compare, tokenizer)


def compare(ours: Path, theirs: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}

    a, b = weights(ours), weights(theirs)
    b.pop("lm_head.weight", None)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    worst = max(float((a[k].float() - b[k].float()).abs().max()) for k in a)
    print("dtypes", {v.dtype for v in a.values()}, {v.dtype for v in b.values()}, "largest difference", worst)
    other = PreTrainedTokenizerFast.from_pretrained(theirs)
    text = "It's 1234 ½ naïve\n\n   tabs\t\t日本語 🙂<|im_start|>user\nfoo_bar(x) => 'q'; I'll we've THEY'RE   <|im_end|>\n"
    assert tokenizer(text).input_ids == other(text).input_ids
    print("tokenizers agree")


if __name__ == "__main__":
    main()
