/** A tiny random model folder with a tokenizer, and a few records: for tests of whole runs. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { InstructionRecord } from "../data/records.ts";
import { bytesOf } from "../formats/half.ts";
import { type LlamaConfig, writeHfConfig } from "../formats/hf-config.ts";
import { type TensorToWrite, writeSafetensors } from "../formats/safetensors.ts";
import { linearNames, linearShape } from "../model/shapes.ts";
import { randomStream } from "../native/philox.ts";
import { BYTE_LEVEL } from "../text/testing.ts";

const config: LlamaConfig = {
  vocabSize: 272,
  hiddenSize: 32,
  intermediateSize: 48,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headSize: 8,
  maxPositions: 1024,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  ropeScaling: null,
  tiedEmbeddings: true,
  bosTokenId: null,
  eosTokenIds: [0],
  padTokenId: null,
  torchDtype: "float32",
  nameOrPath: "tiny-test",
};

/** Writes a LLaMA of 2 layers and 20 thousand parameters; the prompts of a record are some 250 tokens, nearly its bytes. */
export function writeTinyModel(dir: string): void {
  mkdirSync(dir, { recursive: true });
  writeHfConfig(dir, config);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    writeFileSync(join(dir, name), JSON.stringify(BYTE_LEVEL[name]));
  }
  const random = randomStream(7n);
  const matrix = (name: string, ...shape: number[]): TensorToWrite => {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, () => (random.word() / 2 ** 32 - 0.5) / 4);
    return { name, dtype: "F32", shape, bytes: bytesOf(values) };
  };
  const ones = (name: string): TensorToWrite => {
    const values = new Float32Array(config.hiddenSize).fill(1);
    return { name, dtype: "F32", shape: [config.hiddenSize], bytes: bytesOf(values) };
  };
  const layers = Array.from({ length: config.layers }, (_, i) => [
    ...linearNames.map((name) => {
      const shape = linearShape(config, i, name);
      return matrix(`model.${shape.name}.weight`, shape.out, shape.in);
    }),
    ones(`model.layers.${i}.input_layernorm.weight`),
    ones(`model.layers.${i}.post_attention_layernorm.weight`),
  ]);
  const embedding = matrix("model.embed_tokens.weight", config.vocabSize, config.hiddenSize);
  writeSafetensors(join(dir, "model.safetensors"), [embedding, ...layers.flat(), ones("model.norm.weight")]);
}

/** Questions with one of two answers. */
export function tinyRecords(count: number): InstructionRecord[] {
  return Array.from({ length: count }, (_, i) => {
    const answer = i % 3 === 0 ? "true" : "false";
    return {
      instruction: `Please answer the following question with true or false, question: is ${i} a multiple of 3?\n\nAnswer format: true/false`,
      input: "",
      output: `the correct answer is ${answer}`,
      answer,
    };
  });
}
