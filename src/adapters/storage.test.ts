/** Adapter folders: save = load for every method in both layouts, PEFT's own folders, and what is refused. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import {
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type TensorToWrite,
  writeSafetensors,
} from "../formats/safetensors.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import { buildLibrary } from "../native/build.ts";
import { closeDevice, type Device, openDevice } from "../native/device.ts";
import { randomUniform } from "../native/ops/index.ts";
import { createTensor, readBytes, readI32, type Tensor } from "../native/tensor.ts";
import { createWeight, type Weight } from "../native/weight.ts";
import { type Adapter, type AdapterSite, factor, type Method, type MethodName } from "./adapter.ts";
import { indicesOfOneHot, oneHot } from "./one-hot.ts";
import { methods } from "./registry.ts";
import { ADAPTER_FILE, loadAdapterValues, readAdapter, type SaveOptions, saveAdapter } from "./storage.ts";

const RANK = 3;
const SITES: AdapterSite[] = [
  { name: "layers.0.self_attn.q_proj", module: 0, in: 12, out: 10, rank: RANK, scaling: 2 },
  { name: "layers.1.mlp.down_proj", module: 13, in: 17, out: 12, rank: RANK, scaling: 2 },
];
const withAdapters = Object.values(methods).filter((method) => method.name !== "full");
const root = mkdtempSync(join(tmpdir(), "sbora-storage-"));
let folders = 0;
const newFolder = (): string => join(root, `${++folders}`);

// Compiled here, because a first compilation outlasts the time limit of a hook.
await buildLibrary("reference");
let device: Device;
let scratch: Arena;
const weights = new Map<string, Weight>();
beforeAll(async () => {
  device = await openDevice({ library: "reference" });
  scratch = createArena(device, 1 << 16);
  for (const { name, out, in: width } of SITES) {
    const data = Float32Array.from({ length: out * width }, (_, i) => ((i * 37) % 19) / 16 - 0.5);
    weights.set(name, createWeight(device, { name, data, dtype: "f32", out, in: width, compute: "f32" }));
  }
});
afterAll(() => {
  freeArena(scratch);
  closeDevice(device);
  rmSync(root, { recursive: true });
});

/** Adapters of a method at both sites; values as after training (`key`) or as they start (0). */
function adaptersOf(method: Method, seed: number, key = 0n): Adapter[] {
  return SITES.map((site) => {
    const make = (shapes: ReturnType<Method["trainable"]>): Record<string, Tensor> =>
      Object.fromEntries(
        Object.entries(shapes).map(([name, s]) => [name, createTensor(device, s.dtype, s.shape)]),
      );
    const adapter: Adapter = {
      site,
      method,
      trainable: make(method.trainable(site)),
      gradient: make(method.trainable(site)),
      frozen: make(method.frozen(site)),
      derived: make(method.derived(site)),
    };
    const weight = weights.get(site.name)!;
    method.initialise(device, adapter, weight, { seed });
    if (key > 0n) {
      for (const tensor of Object.values(adapter.trainable)) randomUniform(device, key++, -1, 1, tensor);
    }
    method.prepare(device, adapter, weight, scratch);
    return adapter;
  });
}

const bytesOf = (adapters: Adapter[]): Uint8Array[] =>
  adapters.flatMap(({ trainable, frozen }) =>
    Object.values({ ...trainable, ...frozen }).map((tensor) => readBytes(device, tensor)),
  );

function optionsFor(method: MethodName, layout: "native" | "peft"): SaveOptions {
  const metadata = { method, seed: 5, base: "f".repeat(64), recipe: { rank: RANK }, templateHash: null };
  return {
    layout,
    baseModel: "some/base",
    alpha: 6,
    dropout: 0.05,
    metadata,
  };
}

function saved(method: Method, layout: "native" | "peft"): { dir: string; adapters: Adapter[] } {
  const dir = newFolder();
  const adapters = adaptersOf(method, 5, 100n);
  saveAdapter(dir, device, adapters, optionsFor(method.name, layout));
  return { dir, adapters };
}

for (const method of withAdapters) {
  for (const layout of ["native", "peft"] as const) {
    describe(`${method.name}, ${layout} layout`, () => {
      test("save = load, byte for byte", () => {
        const { dir, adapters } = saved(method, layout);
        const folder = readAdapter(dir);
        expect(folder.method).toBe(method.name);
        expect(folder.metadata).toMatchObject({ method: method.name, seed: 5, base: "f".repeat(64) });
        expect(folder.config).toMatchObject({ rank: RANK, alpha: 6, dropout: 0.05, baseModel: "some/base" });
        const loaded = adaptersOf(method, 99);
        expect(bytesOf(loaded)).not.toEqual(bytesOf(adapters));
        loadAdapterValues(folder, device, loaded);
        expect(bytesOf(loaded)).toEqual(bytesOf(adapters));
      });

      test("the same values give the same files", () => {
        const [a, b] = [saved(method, layout), saved(method, layout)];
        for (const name of [ADAPTER_FILE, "adapter_config.json", "sbora.json"]) {
          expect(readFileSync(join(a.dir, name))).toEqual(readFileSync(join(b.dir, name)));
        }
      });

      test("without sbora.json it is what its tensors say", () => {
        const { dir, adapters } = saved(method, layout);
        rmSync(join(dir, "sbora.json"));
        const folder = readAdapter(dir);
        // nothing in a PEFT folder tells these two from LoRA (settled 3)
        const lost = method.name === "oa" || method.name === "lora-fa";
        expect(folder.method).toBe(lost ? "lora" : method.name);
        const loaded = adaptersOf(methods[folder.method], 99);
        loadAdapterValues(folder, device, loaded);
        const sorted = (all: Uint8Array[]): string[] => all.map((bytes) => bytes.toHex()).sort();
        expect(sorted(bytesOf(loaded))).toEqual(sorted(bytesOf(adapters)));
      });
    });
  }
}

describe("files", () => {
  test("SBoRA natively: the official keys, int64 indices in drawn order", () => {
    for (const [name, hot, trained] of [
      ["sbora-fa", "lora_A", "lora_B.weight"],
      ["sbora-fb", "lora_B", "lora_A.weight"],
    ] as const) {
      const { dir, adapters } = saved(methods[name], "native");
      const { tensors } = readSafetensorsHeader(join(dir, ADAPTER_FILE));
      const prefix = `base_model.model.model.${SITES[0]!.name}`;
      expect([...tensors.keys()].filter((key) => key.startsWith(prefix)).sort()).toEqual([
        ...[`${prefix}.${hot}`, `${prefix}.${trained}`].sort(),
      ]);
      const index = tensors.get(`${prefix}.${hot}`)!;
      expect([index.dtype, index.shape]).toEqual(["I64", [RANK]]);
      const values = [...new BigInt64Array(readTensorBytes(index).buffer)].map(Number);
      expect(values).toEqual([...readI32(device, factor(adapters[0]!.frozen, "index"))]);
      const config = JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8"));
      expect([config.peft_type, config.adapter_name]).toEqual(["SBORA", name.replace("-", "_")]);
    }
  });

  test("SBoRA as PEFT: a LoRA whose one factor is dense and one-hot, the same function", () => {
    const { dir, adapters } = saved(methods["sbora-fa"], "peft");
    const { tensors } = readSafetensorsHeader(join(dir, ADAPTER_FILE));
    const A = tensors.get(`base_model.model.model.${SITES[1]!.name}.lora_A.weight`)!;
    expect(A.shape).toEqual([RANK, SITES[1]!.in]);
    const index = readI32(device, factor(adapters[1]!.frozen, "index"));
    const dense = readTensorAsF32(A);
    dense.forEach((v, i) => {
      expect(v).toBe(index[Math.floor(i / SITES[1]!.in)] === i % SITES[1]!.in ? 1 : 0);
    });
    const config = JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8"));
    expect([config.peft_type, config.r, config.lora_alpha]).toEqual(["LORA", RANK, 6]);
  });

  test("one-hot factors and indices are each other's inverse; anything near is refused", () => {
    const index = Int32Array.of(4, 0, 2);
    for (const rows of [true, false]) {
      const shape = rows ? [3, 6] : [6, 3];
      const dense = oneHot(index, 6, rows);
      expect(indicesOfOneHot(dense, shape, rows)).toEqual(index);
      expect(
        indicesOfOneHot(
          dense.map((v) => 2 * v),
          shape,
          rows,
        ),
      ).toBeNull();
      expect(
        indicesOfOneHot(
          dense.map((v, i) => v + (i === 5 ? 1 : 0)),
          shape,
          rows,
        ),
      ).toBeNull();
      expect(indicesOfOneHot(new Float32Array(18), shape, rows)).toBeNull();
      expect(indicesOfOneHot(oneHot(Int32Array.of(1, 1, 2), 6, rows), shape, rows)).toBeNull();
    }
  });
});

describe("refused", () => {
  /** A saved SBoRA-FA folder whose tensors were changed. */
  function changed(
    change: (tensors: TensorToWrite[]) => TensorToWrite[],
    name: MethodName = "sbora-fa",
  ): string {
    const { dir } = saved(methods[name], "native");
    const path = join(dir, ADAPTER_FILE);
    const tensors = [...readSafetensorsHeader(path).tensors.values()].map((entry) => ({
      name: entry.name,
      dtype: entry.dtype,
      shape: entry.shape,
      bytes: readTensorBytes(entry),
    }));
    writeSafetensors(path, change(tensors), { format: "pt" });
    return dir;
  }

  const load = (dir: string, name: MethodName = "sbora-fa"): void =>
    loadAdapterValues(readAdapter(dir), device, adaptersOf(methods[name], 1));

  const withIndices = (...values: bigint[]): string =>
    changed((tensors) =>
      tensors.map((t) =>
        t.dtype === "I64" ? { ...t, bytes: new Uint8Array(BigInt64Array.from(values).buffer) } : t,
      ),
    );

  const cases: [string, () => string, RegExp][] = [
    [
      "an index beyond the width",
      () => withIndices(1n, 2n, 12n),
      /q_proj: indices must be distinct and lie in 0\.\.11/,
    ],
    ["an index twice", () => withIndices(1n, 2n, 1n), /indices must be distinct/],
    ["a negative index", () => withIndices(1n, -2n, 3n), /holds -2 at element 1, expected an index/],
    ["an index beyond 32 bits", () => withIndices(1n, 2n, 4294967299n), /holds 4294967299 at element 2/],
    ["a module less", () => changed((t) => t.filter((x) => !x.name.includes("q_proj"))), /q_proj is missing/],
    [
      "a module more",
      () =>
        changed((t) => [
          ...t,
          ...t.slice(0, 2).map((x) => ({ ...x, name: x.name.replace(/layers\.\d/, "layers.7") })),
        ]),
      /module layers\.7\.\S+ has an adapter, but none is wanted there/,
    ],
    [
      "another shape",
      () =>
        changed((t) => t.map((x) => (x.dtype === "F32" ? { ...x, shape: [x.shape[1]!, x.shape[0]!] } : x))),
      /B has shape \[3, 10\], expected \[10, 3\]/,
    ],
    [
      "NaN",
      () =>
        changed((t) =>
          t.map((x) =>
            x.dtype === "F32" ? { ...x, bytes: (x.bytes as Uint8Array).slice().fill(0xff, 4, 8) } : x,
          ),
        ),
      /lora_B\.weight holds NaN at element 1, expected finite values/,
    ],
    [
      "a tensor of something else",
      () =>
        changed((t) => [
          ...t,
          { name: "base_model.model.lm_head.weight", dtype: "F32", shape: [1], bytes: new Uint8Array(4) },
        ]),
      /tensor base_model\.model\.lm_head\.weight is no adapter tensor/,
    ],
    [
      "a cut file",
      () => {
        const { dir } = saved(methods["sbora-fa"], "native");
        truncateSync(join(dir, ADAPTER_FILE), statSync(join(dir, ADAPTER_FILE)).size - 5);
        return dir;
      },
      /adapter_model\.safetensors/,
    ],
    [
      "an unknown method in sbora.json",
      () => {
        const { dir } = saved(methods["sbora-fa"], "native");
        writeFileSync(join(dir, "sbora.json"), JSON.stringify({ schemaVersion: 1, method: "prefix" }));
        return dir;
      },
      /sbora\.json: method is "prefix", expected one of lora/,
    ],
    [
      "sbora.json of another version",
      () => {
        const { dir } = saved(methods["sbora-fa"], "native");
        writeFileSync(join(dir, "sbora.json"), JSON.stringify({ schemaVersion: 9, method: "lora" }));
        return dir;
      },
      /schemaVersion is 9, expected 1/,
    ],
    [
      "values of other types in sbora.json",
      () => {
        const { dir } = saved(methods["sbora-fa"], "native");
        const json = { schemaVersion: 1, method: "sbora-fa", base: 5, seed: "x" };
        writeFileSync(join(dir, "sbora.json"), JSON.stringify(json));
        return dir;
      },
      /base is 5, expected the fingerprint of a model; seed is "x", expected a whole number/,
    ],
    ["a folder without adapter", () => root, /there is no adapter_config\.json/],
  ];
  for (const [what, make, message] of cases) {
    test(what, () => {
      const dir = make();
      expect(() => load(dir)).toThrow(message);
      expect(() => load(dir)).toThrow(InputError);
    });
  }

  test("nothing is written to the adapters when anything is wrong", () => {
    const dir = withIndices(1n, 2n, 12n);
    const adapters = adaptersOf(methods["sbora-fa"], 1);
    const before = bytesOf(adapters);
    expect(() => loadAdapterValues(readAdapter(dir), device, adapters)).toThrow(InputError);
    expect(bytesOf(adapters)).toEqual(before);
  });
});
