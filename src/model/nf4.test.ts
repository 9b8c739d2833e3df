/** Models of 4-bit linears: bitsandbytes' folders, and ordinary ones quantized while they are loaded. */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { withScratch } from "../adapters/draw.ts";
import { InputError } from "../errors.ts";
import { bytesOf } from "../formats/half.ts";
import { nf4Tensors } from "../formats/nf4-write.ts";
import {
  openModelTensors,
  readTensorBytes,
  type TensorToWrite,
  writeSafetensors,
} from "../formats/safetensors.ts";
import { arenaTensor } from "../native/arena.ts";
import { dropReplaced } from "../native/nf4.ts";
import { readF32, writeI32 } from "../native/tensor.ts";
import { createWeight, freeWeight, readWeightRows, type Weight } from "../native/weight.ts";
import { freeLlama, type Llama, loadLlama } from "./model.ts";
import { isNf4Folder, isQuantized } from "./nf4.ts";
import { linearNames } from "./shapes.ts";
import {
  attachDisturbed,
  closeRig,
  figure,
  gradientsOf,
  largestDifference,
  openRig,
  packed,
  type Rig,
  relativeError,
  testdata,
  withTrained,
} from "./testing.ts";
import { logitsPass, trainPass } from "./train-pass.ts";
import { mergeTrainables } from "./trainables.ts";

const FOLDER = resolve(import.meta.dir, "../formats/testdata/nf4-model") as `/${string}`;
const GOLDEN = JSON.parse(readFileSync(join(FOLDER, "logits.json"), "utf8")) as {
  ids: number[];
  last: number[];
};
const LOAD = { compute: "f32", positions: 64 } as const;
const SEQUENCES = [
  [1, 5, 9, 60, 33, 2, 17, 44],
  [3, 4, 5],
  [20, 21, 22, 23, 24],
];

function valuesOf(rig: Rig, weight: Weight): Float32Array {
  return withScratch(rig.scratch, () => {
    const rows = arenaTensor(rig.scratch, "i32", [weight.out]);
    writeI32(
      rig.device,
      rows,
      Int32Array.from({ length: weight.out }, (_, i) => i),
    );
    const values = arenaTensor(rig.scratch, "f32", [weight.out, weight.in]);
    readWeightRows(rig.device, weight, rows, values);
    return readF32(rig.device, values);
  });
}

function linearsOf(model: Llama): Weight[] {
  return model.layers.flatMap(({ linears }) => linearNames.map((name) => linears[name].weight));
}

/** The same model with dense matrices of the same values; `free` puts the others back. */
function densified(rig: Rig): { rig: Rig; free: () => void } {
  const made: Weight[] = [];
  const layers = rig.model.layers.map((layer) => ({
    ...layer,
    linears: Object.fromEntries(
      linearNames.map((name) => {
        const { weight } = layer.linears[name];
        const { name: label, out, in: width, compute } = weight;
        const data = valuesOf(rig, weight) as Float32Array<ArrayBuffer>;
        const dense = createWeight(rig.device, { name: label, data, dtype: "f32", out, in: width, compute });
        made.push(dense);
        return [name, { weight: dense, adapter: null }];
      }),
    ) as Llama["layers"][number]["linears"],
  }));
  const free = (): void => {
    for (const weight of made) freeWeight(rig.device, weight);
  };
  return { rig: { ...rig, model: { ...rig.model, layers } }, free };
}

const logits = (rig: Rig, sequences = SEQUENCES): Float32Array =>
  logitsPass(rig.model, packed(sequences), rig);

describe("a folder of bitsandbytes", () => {
  test("has the logits of its dequantized matrices in float64", async () => {
    for (const library of ["reference", "cpu"] as const) {
      const rig = await openRig(FOLDER, { library });
      expect(linearsOf(rig.model).map(({ dtype }) => dtype)).toEqual(Array(14).fill("nf4"));
      expect(rig.model.embedding.dtype).toBe("f32");
      const last = logits(rig, [GOLDEN.ids]).slice(-GOLDEN.last.length);
      expect(figure(`${library}, last logits`, relativeError(last, GOLDEN.last))).toBeLessThan(1e-5);
      closeRig(rig);
    }
    expect(isNf4Folder(FOLDER)).toBe(true);
    expect(isNf4Folder(testdata("gqa"))).toBe(false);
  });

  test("trains as the dense model of its values does, to the last bit", async () => {
    for (const compute of ["f32", "bf16"] as const) {
      const rig = await openRig(FOLDER, { compute });
      const dense = densified(rig);
      for (const method of ["sbora-fa", "sbora-fb", "lora", "dora", "oa", "lora-fa"]) {
        const of = (one: Rig): [Float32Array, Map<string, Float64Array>] =>
          withTrained(one, attachDisturbed(one, method), (trained) => {
            const loss = trainPass(one.model, trained, packed(SEQUENCES), { ...one, dropout: null });
            return [loss, gradientsOf(one, trained)];
          });
        expect([method, of(rig)]).toEqual([method, of(dense.rig)]);
      }
      dense.free();
      closeRig(rig);
    }
  });

  test("SBoRA merged into it keeps the codes, and comes out again", async () => {
    for (const method of ["sbora-fa", "sbora-fb"]) {
      const rig = await openRig(FOLDER);
      const before = logits(rig);
      const originals = linearsOf(rig.model).map((weight) => valuesOf(rig, weight));
      withTrained(rig, attachDisturbed(rig, method, 4, ["all-linear"], 0.5), (trained) => {
        const live = logits(rig);
        mergeTrainables(rig.model, trained, rig.scratch);
        for (const { linears } of rig.model.layers)
          for (const name of linearNames) linears[name].adapter = null;
        const merged = logits(rig);
        const effect = largestDifference(live, before);
        expect(
          figure(`${method}: merged against live`, largestDifference(merged, live) / effect),
        ).toBeLessThan(0.02);
        const changed = linearsOf(rig.model).map((weight, i) => {
          const now = valuesOf(rig, weight);
          const lines = method === "sbora-fa" ? weight.out : weight.in;
          const different = now.filter((value, at) => value !== originals[i]![at]).length;
          return different > 3.5 * lines && different <= 4 * lines;
        });
        expect(changed).toEqual(Array(14).fill(true));
      });
      for (const weight of linearsOf(rig.model)) dropReplaced(rig.device, weight);
      expect(logits(rig)).toEqual(before);
      closeRig(rig);
    }
  });
});

describe("an ordinary folder", () => {
  test("is quantized while it is loaded: the blocks' linears and nothing else", async () => {
    const rig = await openRig("gqa");
    const dense = logits(rig);
    const load = (quantize: "nf4" | "nf4-double", compute: "f32" | "bf16" = "f32"): Llama =>
      loadLlama(rig.device, testdata("gqa"), { compute, positions: 128, quantize });
    const single = load("nf4");
    const double = load("nf4-double");
    const narrow = load("nf4", "bf16");
    for (const model of [single, double, narrow]) {
      expect(linearsOf(model).every(({ dtype }) => dtype === "nf4")).toBe(true);
      expect([model.embedding.dtype, model.head.dtype]).not.toContain("nf4");
    }
    const quantized = logits({ ...rig, model: single });
    expect(figure("quantized against dense", relativeError(quantized, dense))).toBeGreaterThan(1e-3);
    expect(relativeError(quantized, dense)).toBeLessThan(0.5);
    const doubled = relativeError(logits({ ...rig, model: double }), quantized);
    expect(figure("double against single", doubled)).toBeGreaterThan(0);
    expect(doubled).toBeLessThan(0.1);
    // bf16 values are those of f32, rounded
    const [wide] = linearsOf(single);
    const [half] = linearsOf(narrow);
    const rounded = valuesOf(rig, wide!).map((value) => bf16(value));
    expect(valuesOf(rig, half!)).toEqual(rounded);
    for (const model of [single, double, narrow]) freeLlama(model);
    closeRig(rig);
  });

  test("which names are quantized", () => {
    expect(isQuantized("model.layers.11.self_attn.q_proj.weight")).toBe(true);
    expect(isQuantized("model.layers.0.mlp.down_proj.weight")).toBe(true);
    for (const name of ["lm_head", "model.embed_tokens", "model.norm", "model.layers.0.input_layernorm"])
      expect(isQuantized(`${name}.weight`)).toBe(false);
  });
});

function bf16(value: number): number {
  const word = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  return new Float32Array(Uint32Array.of((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000).buffer)[0]!;
}

describe("folders with replaced columns or rows, and bad ones", () => {
  const NAME = "model.layers.1.mlp.down_proj.weight";

  /** The golden folder with the tensors of `edit`. */
  function folder<T>(edit: (tensors: TensorToWrite[]) => TensorToWrite[], use: (dir: string) => T): T {
    const dir = mkdtempSync(join(tmpdir(), "sbora-nf4-"));
    try {
      cpSync(join(FOLDER, "config.json"), join(dir, "config.json"));
      const all = [...openModelTensors(FOLDER).values()].map((entry): TensorToWrite => {
        return { name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes: readTensorBytes(entry) };
      });
      writeSafetensors(join(dir, "model.safetensors"), edit(all));
      return use(dir);
    } finally {
      rmSync(dir, { recursive: true });
    }
  }

  test("replaced lines take their place", async () => {
    const rig = await openRig(FOLDER);
    const [out, width] = [64, 96];
    const before = valuesOf(rig, rig.model.layers[1]!.linears.down_proj.weight);
    for (const kind of ["columns", "rows"] as const) {
      const indices = Int32Array.of(63, 5);
      const length = kind === "columns" ? out : width;
      const values = Uint16Array.from({ length: 2 * length }, (_, i) => 0x3f80 + i);
      const lines = nf4Tensors({
        ...{
          name: NAME,
          out,
          in: width,
          dtype: "F32",
          codes: new Uint8Array(0),
          scales: new Float32Array(0),
        },
        replaced: { kind, indices, values },
      }).filter(({ name }) => name.includes("sbora"));
      folder(
        (tensors) => [...tensors, ...lines],
        (dir) => {
          const model = loadLlama(rig.device, dir, LOAD);
          const now = valuesOf(rig, model.layers[1]!.linears.down_proj.weight);
          const wanted = before.slice();
          const bits = new Uint32Array(wanted.buffer);
          indices.forEach((index, j) => {
            for (let i = 0; i < length; i++) {
              if (kind === "columns") bits[i * width + index] = values[i * 2 + j]! << 16;
              else bits[index * width + i] = values[j * width + i]! << 16;
            }
          });
          expect(now).toEqual(wanted);
          freeLlama(model);
        },
      );
    }
    closeRig(rig);
  });

  test("foreign ones are refused with the tensor's name", async () => {
    const rig = await openRig(FOLDER);
    const refused = (edit: (tensor: TensorToWrite) => TensorToWrite, message: RegExp): void =>
      folder(
        (tensors) => tensors.map(edit),
        (dir) => {
          const text = errorOf(() => freeLlama(loadLlama(rig.device, dir, LOAD)));
          expect(text).toMatch(message);
        },
      );
    const only =
      (name: string, change: (tensor: TensorToWrite) => Partial<TensorToWrite>) => (tensor: TensorToWrite) =>
        tensor.name === name ? { ...tensor, ...change(tensor) } : tensor;
    const text = (tensor: TensorToWrite): string => new TextDecoder().decode(tensor.bytes as Uint8Array);
    refused(
      only(`${NAME}.quant_state.bitsandbytes__nf4`, (tensor) => {
        const bytes = new TextEncoder().encode(text(tensor).replace('"blocksize": 64', '"blocksize": 128'));
        return { bytes, shape: [bytes.length] };
      }),
      /tensor model\.layers\.1\.mlp\.down_proj\.weight: quant_state\.blocksize is 128, expected 64/,
    );
    refused(
      only(`${NAME}.quant_state.bitsandbytes__nf4`, (tensor) => {
        const bytes = new TextEncoder().encode(text(tensor).replace("[64, 96]", "[96, 64]"));
        return { bytes, shape: [bytes.length] };
      }),
      /is quantized from \[96, 64\], but config\.json asks for \[64, 96\]/,
    );
    refused(
      only(`${NAME}.nested_absmax`, () => ({ bytes: bytesOf(Float32Array.of(Number.NaN)) })),
      /the scale of block 0 is NaN/,
    );
    closeRig(rig);
  });

  function errorOf(run: () => unknown): string {
    try {
      run();
    } catch (error) {
      if (error instanceof InputError) return error.message;
      throw error;
    }
    throw new Error("nothing was thrown");
  }
});
