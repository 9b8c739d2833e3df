/** Continues a prompt with a model, with or without an adapter: greedy (streamed) or by beam search. */
import type { ParsedArgs } from "citty";
import { readAdapter } from "../src/adapters/storage.ts";
import { promptFormats, promptNamed } from "../src/data/prompts/registry.ts";
import { InputError } from "../src/errors.ts";
import { fingerprintModel } from "../src/formats/fingerprint.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { generate } from "../src/generation/decode.ts";
import {
  adapterOptionsOf,
  baseMismatch,
  mergeFolder,
  quantizationMismatch,
} from "../src/model/load-adapter.ts";
import { freeLlama, loadLlama } from "../src/model/model.ts";
import { closeDevice } from "../src/native/device.ts";
import { loadChatTemplate } from "../src/text/chat-template.ts";
import { createStreamDecoder } from "../src/text/stream-decoder.ts";
import { loadTokenizer, type Tokenizer } from "../src/text/tokenizer.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  oneAdapter,
  openCommandDevice,
  quantizeFlag,
  quantizeFlags,
  required,
  runCommand,
  wholeFlag,
} from "./arguments.ts";

const EXAMPLES = `Examples
  bun run scripts/generate.ts --model models/smollm2-135m --prompt "The capital of France is"
  bun run scripts/generate.ts --model models/smollm2-135m --chat --prompt "Name three rivers." --max-new-tokens 200
  bun run scripts/generate.ts --model models/smollm2-135m --adapter runs/first --format llm-adapters --prompt "Is ice cold?" --beams 4`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Hugging Face model folder (LLaMA family)" },
  adapter: { type: "string", valueHint: "DIR", description: "Adapter folder, merged into the weights first" },
  prompt: { type: "string", valueHint: "TEXT", description: "Text to continue" },
  chat: {
    type: "boolean",
    default: false,
    description: "The prompt is a user's message, put into the model's chat template",
  },
  format: {
    type: "string",
    valueHint: promptFormats.map((f) => f.name).join("|"),
    description: "The prompt is an instruction, put into this prompt format",
  },
  "max-new-tokens": {
    type: "string",
    default: "128",
    valueHint: "N",
    description: "Longest continuation in tokens",
  },
  beams: {
    type: "string",
    default: "1",
    valueHint: "N",
    description: "Beams of the search; 1 is greedy and streams",
  },
  ...quantizeFlags,
  ...deviceFlags,
} as const;

type Args = ParsedArgs<typeof ARGS>;

function promptIds(args: Args, modelDir: string, tokenizer: Tokenizer): number[] {
  const text = required(args, "prompt", "a text to continue");
  if (args.chat && args.format)
    throw new InputError("--chat and --format both wrap the prompt; give one of them.");
  if (args.format) return tokenizer.encode(promptNamed(args.format).test({ instruction: text, input: "" }));
  if (!args.chat) return tokenizer.encode(text);
  const template = loadChatTemplate(modelDir, tokenizer);
  if (template) return template.render([{ role: "user", content: text }]).ids;
  throw new InputError(
    `${modelDir}: there is no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); leave out --chat, ` +
      `or take the model's instruction-tuned version.`,
  );
}

async function main(args: Args): Promise<void> {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const maxNewTokens = wholeFlag(args, "max-new-tokens", 1)!;
  const beams = wholeFlag(args, "beams", 1)!;
  const compute = choiceFlag(args, "compute", COMPUTE_TYPES)!;
  const quantize = quantizeFlag(args);
  const config = readLlamaConfig(modelDir);
  const tokenizer = loadTokenizer(modelDir);
  const ids = promptIds(args, modelDir, tokenizer);
  if (ids.length + maxNewTokens > config.maxPositions) {
    throw new InputError(
      `--max-new-tokens is ${maxNewTokens} behind a prompt of ${ids.length} tokens, but the model was made for ` +
        `${config.maxPositions} positions (max_position_embeddings); ask for fewer, or shorten the prompt.`,
    );
  }
  oneAdapter();
  const folder = args.adapter ? readAdapter(args.adapter) : null;
  if (folder) adapterOptionsOf(folder);
  const mismatch = folder?.metadata?.base ? baseMismatch(folder, fingerprintModel(modelDir)) : null;
  if (mismatch) console.error(`note: ${mismatch}`);
  const otherBits = folder && quantizationMismatch(folder, quantize);
  if (otherBits) console.error(`note: ${otherBits}`);
  const { prompt: trainedWith } = (folder?.metadata?.recipe ?? {}) as { prompt?: unknown };
  if (typeof trainedWith === "string" && !args.format && !args.chat) {
    console.error(
      `note: the adapter was trained on prompts of the format ${trainedWith}; --format ${trainedWith} asks in it`,
    );
  }

  const device = await openCommandDevice(args);
  try {
    const model = loadLlama(device, modelDir, {
      ...{ compute, positions: ids.length + maxNewTokens },
      ...(quantize ? { quantize } : {}),
    });
    if (folder) mergeFolder(model, folder);
    const eosIds = [...new Set([...tokenizer.eosIds, ...config.eosTokenIds])];
    const stream = createStreamDecoder(tokenizer, { skipSpecialTokens: true, after: ids });
    const show = (token: number): void => {
      process.stdout.write(stream.push(token));
    };
    const start = performance.now();
    const [tokens] = await generate(model, [ids], {
      beams,
      maxNewTokens,
      eosIds,
      ...(beams === 1 ? { onToken: (_prompt: number, token: number) => show(token) } : {}),
    });
    const seconds = (performance.now() - start) / 1000;
    if (beams > 1) for (const token of tokens!) show(token);
    process.stdout.write(`${stream.end()}\n`);
    console.error(
      `${ids.length} + ${tokens!.length} tokens, ${(tokens!.length / seconds).toFixed(1)} tokens/s`,
    );
    freeLlama(model);
  } finally {
    closeDevice(device);
  }
}

await runCommand({
  name: "bun run scripts/generate.ts",
  description: "Continue a prompt: greedy and streamed, or by beam search.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
