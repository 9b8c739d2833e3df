/** Two tiny tokenizer folders for tests: byte-level as LLaMA-3's and SmolLM2's, and with byte fallback as LLaMA-2's. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type Files = Readonly<Record<string, unknown>>;

/** Runs `use` on a temporary folder with these files; texts are written as they are, all else as JSON. */
export function withFolder<T>(files: Files, use: (dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), "sbora-text-"));
  try {
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(dir, name), typeof content === "string" ? content : JSON.stringify(content));
    }
    return use(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function special(id: number, content: string): object {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

function vocabulary(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

/** The printable stand-ins of the 256 bytes, in GPT-2's order. */
function byteCharacters(): string[] {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const others = Array.from({ length: 256 }, (_, b) => b).filter((b) => !printable(b));
  return Array.from({ length: 256 }, (_, b) =>
    String.fromCharCode(printable(b) ? b : 256 + others.indexOf(b)),
  );
}

const BYTE_MERGES = ["Ġ t", "h e", "Ġt he", "l o", "Ġ Ġ", "1 2", "i m", "æĹ ¥", "æ Ĺ"];

/** Ids: 0 `<|end|>`, 1 `<|start|>`, then bytes and merges. Digits stand alone; nothing is put in front. */
export const BYTE_LEVEL: Files = {
  "tokenizer.json": {
    version: "1.0",
    added_tokens: [special(0, "<|end|>"), special(1, "<|start|>")],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      vocab: vocabulary([
        "<|end|>",
        "<|start|>",
        ...byteCharacters(),
        ...BYTE_MERGES.map((m) => m.replace(" ", "")),
      ]),
      merges: BYTE_MERGES,
    },
  },
  "tokenizer_config.json": { bos_token: "<|start|>", eos_token: "<|end|>", pad_token: "<|end|>" },
  "generation_config.json": { eos_token_id: [0, 7] },
};

const BYTES = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
const PIECES = [
  "▁",
  "a",
  "b",
  "c",
  "t",
  "h",
  "e",
  ".",
  "'",
  "s",
  "n",
  "日",
  "th",
  "the",
  "▁the",
  "▁a",
  "▁▁",
  "▁b",
];
const PIECE_MERGES = ["t h", "th e", "▁ the", "▁ a", "▁ ▁", "▁ b"];

/** Ids: 0 `<unk>`, 1 `<s>` (put in front), 2 `</s>`, 3 to 258 bytes, then pieces. */
export const BYTE_FALLBACK: Files = {
  "tokenizer.json": {
    version: "1.0",
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: vocabulary(["<unk>", "<s>", "</s>", ...BYTES, ...PIECES]),
      merges: PIECE_MERGES,
    },
  },
  "tokenizer_config.json": {
    bos_token: { content: "<s>" },
    eos_token: { content: "</s>" },
    pad_token: null,
    clean_up_tokenization_spaces: true,
  },
};
