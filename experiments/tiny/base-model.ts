/** The embedded model before and after its training: shape, tokenizer, drawn weights, and the text as token ids. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TrainingExample } from "../../src/data/examples.ts";
import { llmAdapters } from "../../src/data/prompts/llm-adapters.ts";
import { writeTextFile } from "../../src/formats/files.ts";
import { bytesOf } from "../../src/formats/half.ts";
import { type LlamaConfig, writeHfConfig } from "../../src/formats/hf-config.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors.ts";
import { linearNames, linearShape } from "../../src/model/shapes.ts";
import type { Tokenizer } from "../../src/text/tokenizer.ts";
import { adamwDefaults } from "../../src/training/optimizer.ts";
import type { TrainRecipe } from "../../src/training/recipe.ts";
import { specialTokens, tokenizerConfigJson, tokenizerJson, trainBpe } from "./bpe.ts";
import { type Passage, pretrainingTexts } from "./pretraining.ts";
import { type Random, randomFor } from "./random.ts";
import { tinyMix } from "./tasks.ts";
import type { World } from "./world.ts";

/** 0.7 M parameters. Narrowest adapted width: k and v with 64 outputs, so that ranks up to 64 are legal (settled 5). */
export const tinyConfig: LlamaConfig = {
  vocabSize: 896,
  hiddenSize: 128,
  intermediateSize: 256,
  layers: 4,
  heads: 4,
  kvHeads: 2,
  headSize: 32,
  maxPositions: 512,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  ropeScaling: null,
  tiedEmbeddings: true,
  bosTokenId: 0,
  eosTokenIds: [1],
  padTokenId: null,
  torchDtype: "float32",
  nameOrPath: "sbora-tiny",
};

export const pretrainingRecipe: TrainRecipe = {
  method: "full",
  rank: 1,
  alpha: 1,
  dropout: 0,
  targets: ["all-linear"],
  learningRate: 2e-3,
  schedule: "linear",
  warmup: 100,
  scheduleSteps: null,
  optimizer: { ...adamwDefaults, beta2: 0.98 },
  batch: 32,
  // Every document counts the same: the one word that answers a quiz as much as a page of statements.
  microBatch: 1,
  lossMean: "micro",
  lossOn: "all",
  cutoff: 128,
  epochs: 1,
  steps: null,
  evalEvery: 1_000_000,
  valSize: 0,
  seed: 1,
  shuffle: false,
  prompt: "llm-adapters",
  compute: "f32",
};

/** Documents the tokenizer is trained on; the rest of the text is more of the same. */
const TOKENIZER_DOCUMENTS = 20_000;

/** Writes tokenizer, configuration and drawn weights (f32) as a model folder. */
export function writeUntrainedModel(dir: string, world: World, seed: number): void {
  mkdirSync(dir, { recursive: true });
  const mix = tinyMix(world, 200, seed).flatMap((record) => [
    llmAdapters.train(record) + record.output,
    llmAdapters.test(record),
  ]);
  const texts = pretrainingTexts(world, TOKENIZER_DOCUMENTS, seed);
  const passages = texts.map(({ question, reply }) => question + reply);
  const bpe = trainBpe([...passages, ...mix], tinyConfig.vocabSize);
  writeTextFile(join(dir, "tokenizer.json"), `${JSON.stringify(tokenizerJson(bpe))}\n`);
  const settings = tokenizerConfigJson(tinyConfig.maxPositions);
  writeTextFile(join(dir, "tokenizer_config.json"), `${JSON.stringify(settings, null, 2)}\n`);
  writeHfConfig(dir, tinyConfig);
  writeSafetensors(join(dir, "model.safetensors"), drawnWeights(tinyConfig, seed), { format: "pt" });
}

/** Embedding ~ N(0, 0.05²) nearly, linears by 1/√in, what writes into the residual stream smaller by √(2·layers). */
function drawnWeights(config: LlamaConfig, seed: number): TensorToWrite[] {
  const { hiddenSize: H, vocabSize: V, layers } = config;
  const random = randomFor(seed, 4);
  const tensors: TensorToWrite[] = [];
  const add = (name: string, shape: number[], value: () => number): void => {
    const size = shape.reduce((a, b) => a * b, 1);
    tensors.push({ name, dtype: "F32", shape, bytes: bytesOf(Float32Array.from({ length: size }, value)) });
  };
  add("model.embed_tokens.weight", [V, H], () => 0.05 * nearlyNormal(random));
  for (let i = 0; i < layers; i++) {
    for (const name of linearNames) {
      const shape = linearShape(config, i, name);
      const residual = name === "o_proj" || name === "down_proj" ? 1 / Math.sqrt(2 * layers) : 1;
      const scale = residual / Math.sqrt(shape.in);
      add(`model.${shape.name}.weight`, [shape.out, shape.in], () => scale * nearlyNormal(random));
    }
    add(`model.layers.${i}.input_layernorm.weight`, [H], () => 1);
    add(`model.layers.${i}.post_attention_layernorm.weight`, [H], () => 1);
  }
  add("model.norm.weight", [H], () => 1);
  return tensors;
}

/** Sum of twelve uniform numbers: mean 0, variance 1, and the same on every machine. */
function nearlyNormal(random: Random): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random.below(1 << 24) / (1 << 24);
  return sum;
}

/** Documents as training examples; a question in front of a reply is read, not learned. */
export function passageExamples(texts: readonly Passage[], tokenizer: Tokenizer): TrainingExample[] {
  const eos = tokenizer.eosId;
  if (eos === null) throw new Error(`the tokenizer has no ${specialTokens.eos}`);
  return texts.map(({ question, reply }, id) => ({
    id,
    tokens: Int32Array.from([...tokenizer.encode(question + reply), eos]),
    labelFrom: Math.max(1, question === "" ? 1 : tokenizer.encode(question).length),
  }));
}
