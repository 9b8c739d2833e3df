import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fingerprintModel } from "./fingerprint.ts";
import { bytesOf } from "./half.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors.ts";
import { withFiles } from "./testing.ts";

let cache = "";
let before: string | undefined;

beforeAll(() => {
  cache = mkdtempSync(join(tmpdir(), "sbora-cache-"));
  before = process.env.SBORA_CACHE;
  process.env.SBORA_CACHE = cache;
});

afterAll(() => {
  if (before === undefined) delete process.env.SBORA_CACHE;
  else process.env.SBORA_CACHE = before;
  rmSync(cache, { recursive: true });
});

const tensor = (name: string, values: number[], shape = [values.length]): TensorToWrite => ({
  name,
  dtype: "F32",
  shape,
  bytes: bytesOf(Float32Array.from(values)),
});
const A = tensor("a", [1, 2, 3, 4]);
const B = tensor("b", [5]);
const C = tensor("c", [6, 7]);

/** Fingerprint of a folder with these shards; one shard is a plain model.safetensors. */
function of(...shards: TensorToWrite[][]): string {
  return withFiles({}, (dir) => {
    const [only] = shards;
    if (only && shards.length === 1) writeSafetensors(join(dir, "model.safetensors"), only);
    else {
      const map: Record<string, string> = {};
      shards.forEach((tensors, i) => {
        const file = `model-${i}.safetensors`;
        writeSafetensors(join(dir, file), tensors);
        for (const { name } of tensors) map[name] = file;
      });
      writeFileSync(join(dir, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    }
    return fingerprintModel(dir);
  });
}

test("is that of the definition: SHA-256 over sorted name, dtype, shape and SHA-256 of the bytes", () => {
  const sha = (data: string | Uint8Array): string =>
    new Bun.CryptoHasher("sha256").update(data).digest("hex");
  const bytes = (...values: number[]): string => sha(bytesOf(Float32Array.from(values)));
  expect(of([B, A])).toBe(sha(`a F32 4 ${bytes(1, 2, 3, 4)}\nb F32 1 ${bytes(5)}\n`));
});

test("does not depend on shards, their order or metadata", () => {
  const whole = of([A, B, C]);
  expect(whole).toMatch(/^[0-9a-f]{64}$/);
  expect(of([A], [B, C])).toBe(whole);
  expect(of([C], [B], [A])).toBe(whole);
});

test("depends on names, shapes and values", () => {
  const all = [
    of([A, B]),
    of([A, C]),
    of([tensor("a", [1, 2, 3, 4], [2, 2]), B]),
    of([tensor("a", [1, 2, 3, 5]), B]),
    of([A, { ...B, name: "d" }]),
  ];
  expect(new Set(all).size).toBe(all.length);
});

test("is computed again when the file changes, and not when it does not", () =>
  withFiles({}, (dir) => {
    const path = join(dir, "model.safetensors");
    writeSafetensors(path, [A]);
    const first = fingerprintModel(dir);
    const entries = (): number => readdirSync(join(cache, "fingerprints")).length;
    const cached = entries();
    expect(fingerprintModel(dir)).toBe(first);
    expect(entries()).toBe(cached);
    writeSafetensors(path, [tensor("a", [1, 2, 3, 9])]);
    utimesSync(path, new Date(), new Date(Date.now() + 5000));
    expect(fingerprintModel(dir)).not.toBe(first);
    expect(entries()).toBe(cached + 1);
  }));

test("a cache that cannot be written costs nothing but time", () => {
  process.env.SBORA_CACHE = "/proc/no/such/place";
  const first = of([A, B]);
  process.env.SBORA_CACHE = cache;
  expect(of([A, B])).toBe(first);
});
