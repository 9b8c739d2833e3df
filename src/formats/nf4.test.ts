import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bytesOf } from "./half.ts";
import { readLlamaConfig, toHfConfig } from "./hf-config.ts";
import { findNf4, isNf4Part, readNf4Lines, readNf4Scales } from "./nf4.ts";
import { dynamicMap, meanOf, NF4_CODES, nestScales, unnestScales } from "./nf4-scales.ts";
import { nf4Config, nf4Tensors } from "./nf4-write.ts";
import {
  openModelTensors,
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type TensorEntry,
  type TensorToWrite,
  writeSafetensors,
} from "./safetensors.ts";
import { inputErrorOf, withFiles } from "./testing.ts";

const GOLDEN = join(import.meta.dir, "testdata/nf4.safetensors");
const MODEL = join(import.meta.dir, "testdata/nf4-model");
const golden = readSafetensorsHeader(GOLDEN).tensors;
const entry = (name: string): TensorEntry => golden.get(name)!;
const bytes = (name: string): Uint8Array => readTensorBytes(entry(name));
const floats = (name: string): Float32Array => readTensorAsF32(entry(name));

/** A golden matrix with the code book that stands once in the file. */
function matrix(name: string): Map<string, TensorEntry> {
  const parts = new Map<string, TensorEntry>();
  for (const [key, found] of golden) if (key.startsWith(name)) parts.set(key, { ...found, name: key });
  const maps = "real-bf16.double.weight";
  parts.set(`${name}.quant_map`, entry(`${maps}.quant_map`));
  if (parts.has(`${name}.nested_absmax`)) {
    parts.set(`${name}.nested_quant_map`, entry(`${maps}.nested_quant_map`));
  }
  return parts;
}

const MATRICES = [...golden.keys()].filter((name) => name.endsWith(".weight"));

describe("bitsandbytes' numbers", () => {
  test("code book and 8-bit map, bit for bit", () => {
    expect(bytes("real-bf16.double.weight.quant_map")).toEqual(bytesOf(NF4_CODES));
    expect(bytes("real-bf16.double.weight.nested_quant_map")).toEqual(bytesOf(dynamicMap()));
  });

  test("double quantization of a real matrix's scales, bit for bit at its offset; the mean within one step", () => {
    const scales = floats("scales.input");
    const offset = floats("scales.offset")[0]!;
    const nested = nestScales(scales, offset);
    expect(nested.codes).toEqual(bytes("scales.absmax"));
    expect(bytesOf(nested.absmax)).toEqual(bytes("scales.nested_absmax"));
    expect(bytesOf(unnestScales(nested))).toEqual(bytes("scales.values"));
    const [ours, theirs] = new Int32Array(Float32Array.of(meanOf(scales), offset).buffer);
    expect(Math.abs(ours! - theirs!)).toBeLessThanOrEqual(1);
  });

  test("scales that are all alike, and none", () => {
    const same = nestScales(new Float32Array(300).fill(0.25));
    expect(unnestScales(same)).toEqual(new Float32Array(300).fill(0.25));
    expect(unnestScales(nestScales(new Float32Array(0)))).toEqual(new Float32Array(0));
  });

  test("every golden's scales, single and double", () => {
    let doubles = 0;
    for (const name of MATRICES.filter((one) => one.includes(".double."))) {
      const single = floats(name.replace(".double.", ".single.").concat(".absmax"));
      const found = findNf4(matrix(name), name)!;
      const nested = nestScales(single, found.nested!.offset);
      expect([name, nested.codes]).toEqual([name, bytes(`${name}.absmax`)]);
      expect(bytesOf(nested.absmax)).toEqual(bytes(`${name}.nested_absmax`));
      expect(readNf4Scales(found)).toEqual(unnestScales(nested));
      doubles++;
    }
    expect(doubles).toBeGreaterThanOrEqual(5);
  });

  test("values are code book times scale, rounded to the state's type", () => {
    for (const name of MATRICES.filter((one) => one.includes(".single."))) {
      const found = findNf4(matrix(name), name)!;
      const [codes, scales] = [bytes(name), readNf4Scales(found)];
      const values = Float32Array.from({ length: found.out * found.in }, (_, i) => {
        const code = i % 2 === 0 ? codes[i >> 1]! >> 4 : codes[i >> 1]! & 15;
        return NF4_CODES[code]! * scales[i >> 6]!;
      });
      const wanted = entry(name.replace(".weight", ".values"));
      expect(found.dtype as string).toBe(wanted.dtype);
      const rounded = { F32: values, F16: Float32Array.from(new Float16Array(values)), BF16: bf16(values) };
      expect([name, rounded[found.dtype]]).toEqual([name, readTensorAsF32(wanted)]);
    }
  });
});

function bf16(values: Float32Array): Float32Array {
  const words = new Uint32Array(values.slice().buffer);
  return new Float32Array(words.map((w) => (w + 0x7fff + ((w >>> 16) & 1)) & 0xffff0000).buffer);
}

describe("files", () => {
  test("what is written is what bitsandbytes wrote, byte for byte", () => {
    for (const name of MATRICES) {
      const found = findNf4(matrix(name), name)!;
      const { nested } = found;
      const scales = nested
        ? {
            codes: bytes(`${name}.absmax`),
            absmax: floats(`${name}.nested_absmax`),
            map: floats("real-bf16.double.weight.nested_quant_map"),
            offset: nested.offset,
          }
        : floats(`${name}.absmax`);
      const written = nf4Tensors({ ...found, replaced: null, codes: bytes(name), scales });
      for (const tensor of written) {
        const theirs = matrix(name).get(tensor.name)!;
        expect([tensor.name, tensor.dtype, tensor.shape]).toEqual([
          tensor.name,
          theirs.dtype,
          theirs.shape as number[],
        ]);
        expect([tensor.name, tensor.bytes]).toEqual([tensor.name, readTensorBytes(theirs)]);
      }
      expect(written.length).toBe(nested ? 6 : 4);
    }
  });

  test("replaced columns and rows come back", () => {
    for (const kind of ["columns", "rows"] as const) {
      const lines = {
        kind,
        indices: Int32Array.of(7, 2),
        values: Uint16Array.from({ length: 2 * (kind === "columns" ? 10 : 13) }, (_, i) => i),
      };
      const file = written((one) => one, { replaced: lines });
      file((tensors) => expect(readNf4Lines(findNf4(tensors, "w.weight")!)).toEqual(lines));
    }
  });

  test("a folder of transformers", () => {
    const tensors = openModelTensors(MODEL);
    const config = readLlamaConfig(MODEL);
    const name = "model.layers.1.mlp.down_proj.weight";
    const found = findNf4(tensors, name)!;
    expect([found.out, found.in, found.dtype]).toEqual([config.hiddenSize, config.intermediateSize, "F32"]);
    expect(findNf4(tensors, "model.embed_tokens.weight")).toBeNull();
    expect(findNf4(tensors, "no.weight")).toBeNull();
    expect(readNf4Lines(found)).toBeNull();
    const parts = [...tensors.keys()].filter(isNf4Part);
    expect(parts.length).toBe(14 * 5);
    expect(nf4Config(true, "f32")).toEqual(
      JSON.parse(readFileSync(join(MODEL, "config.json"), "utf8")).quantization_config,
    );
  });
});

/** A matrix [10,13] with double quantization, changed by `edit`, in a file. */
function written(
  edit: (tensor: TensorToWrite) => TensorToWrite | null,
  more: Partial<Parameters<typeof nf4Tensors>[0]> = {},
): (use: (tensors: ReadonlyMap<string, TensorEntry>) => void) => void {
  const scales = nestScales(Float32Array.of(1, 2, 3));
  const base = {
    name: "w.weight",
    out: 10,
    in: 13,
    dtype: "BF16",
    codes: new Uint8Array(65),
    scales,
  } as const;
  const tensors = nf4Tensors({ ...base, ...more })
    .map(edit)
    .filter((one) => one !== null);
  return (use) =>
    withFiles({}, (dir) => {
      writeSafetensors(join(dir, "model.safetensors"), tensors);
      use(openModelTensors(dir));
    });
}

describe("bad input", () => {
  const refused = (
    edit: (tensor: TensorToWrite) => TensorToWrite | null,
    message: RegExp,
    more: Partial<Parameters<typeof nf4Tensors>[0]> = {},
  ): void => {
    written(
      edit,
      more,
    )((tensors) => {
      const text = inputErrorOf(() => {
        const found = findNf4(tensors, "w.weight");
        if (found) readNf4Scales(found);
        if (found) readNf4Lines(found);
      });
      expect(text).toMatch(message);
      expect(text).toContain("model.safetensors: tensor w.weight");
    });
  };
  const state = (change: (text: string) => string) => (tensor: TensorToWrite) => {
    if (!tensor.name.includes("quant_state")) return tensor;
    const bytes = new TextEncoder().encode(change(new TextDecoder().decode(tensor.bytes as Uint8Array)));
    return { ...tensor, shape: [bytes.length], bytes };
  };
  const without = (suffix: string) => (tensor: TensorToWrite) =>
    tensor.name.endsWith(suffix) ? null : tensor;
  const swap = (suffix: string, change: Partial<TensorToWrite>) => (tensor: TensorToWrite) =>
    tensor.name === `w.weight${suffix}` ? { ...tensor, ...change } : tensor;

  test("block sizes, types and shapes that are not ours", () => {
    refused(
      state((s) => s.replace("64", "128")),
      /quant_state\.blocksize is 128, expected 64.*blocks of 64/,
    );
    refused(
      state((s) => s.replace('"nested_blocksize": 256', '"nested_blocksize": 512')),
      /nested_blocksize is 512/,
    );
    refused(
      state((s) => s.replace('"blocksize": 64, ', "")),
      /quant_state\.blocksize is missing, expected 64/,
    );
    refused(
      state((s) => s.replace("bfloat16", "float8")),
      /quant_state\.dtype is "float8"/,
    );
    refused(
      state((s) => s.replace("[10, 13]", "[10]")),
      /quant_state\.shape is \[10\], expected two sizes/,
    );
    refused(
      state((s) => s.replace("[10, 13]", "[10, 14]")),
      /the codes are U8 \[65, 1\], expected U8 \[70, 1\] for a matrix \[10, 14\]/,
    );
    refused(
      state((s) => s.replace("[10, 13]", "[4294967296, 4294967296]")),
      /quant_state\.shape is/,
    );
    refused(
      state((s) => s.replace(/"nested_offset": [^}]*/, '"nested_offset": "x"')),
      /nested_offset is "x", expected a number/,
    );
    refused(
      state((s) => s.slice(1)),
      /is no JSON text/,
    );
    refused(
      state(() => "[]"),
      /is no JSON object/,
    );
    refused(
      state(() => " ".repeat(5000)),
      /5000 bytes; expected a JSON text/,
    );
    refused(
      swap(".absmax", { dtype: "F32", bytes: new Uint8Array(12) }),
      /\.absmax are F32 \[3\], expected U8 \[3\]/,
    );
    refused(without(".quant_map"), /\.quant_map is missing, expected F32 \[16\]/);
    refused(without(".nested_quant_map"), /\.nested_quant_map is missing/);
    refused(swap(".quant_map", { bytes: new Uint8Array(64) }), /another code book/);
    refused(without("bitsandbytes__nf4"), /is U8 without w\.weight\.quant_state/);
    const fp4 = (tensor: TensorToWrite) => ({ ...tensor, name: tensor.name.replace("__nf4", "__fp4") });
    refused(fp4, /is quantized to FP4; expected NF4.*--quantize nf4/);
    const bad = Float32Array.of(1, Number.NaN, 3);
    refused((one) => one, /the scale of block 1 is NaN/, { scales: bad });
  });

  test("replaced lines that do not fit", () => {
    const lines = (indices: number[], count = 20) =>
      ({
        replaced: { kind: "columns", indices: Int32Array.from(indices), values: new Uint16Array(count) },
      }) as const;
    refused((one) => one, /entry 1 is 13; expected different columns from 0 to 12/, lines([1, 13]));
    refused((one) => one, /entry 1 is 4; expected different/, lines([4, 4]));
    refused((one) => one, /entry 0 is -1/, lines([-1, 4]));
    refused(without(".sbora_columns"), /has neither \.sbora_columns nor/, lines([1, 2]));
    refused(without(".sbora_values"), /\.sbora_values is missing, expected BF16 \[10, 2\]/, lines([1, 2]));
  });

  test("config.json of another quantization", () => {
    const config = toHfConfig(readLlamaConfig(MODEL));
    for (const [change, message] of [
      [{ bnb_4bit_quant_type: "fp4" }, /quantization_config\.bnb_4bit_quant_type is "fp4", expected "nf4"/],
      [{ load_in_8bit: true }, /load_in_8bit is true, expected false/],
      [{ bnb_4bit_quant_storage: "bfloat16" }, /bnb_4bit_quant_storage is "bfloat16"/],
      [{ quant_method: "gptq" }, /quant_method is "gptq", expected "bitsandbytes"/],
    ] as const) {
      const quantization_config = { ...nf4Config(false, "f32"), ...change };
      withFiles({ "config.json": { ...config, quantization_config } }, (dir) => {
        expect(inputErrorOf(() => readLlamaConfig(dir))).toMatch(message);
      });
    }
  });
});
