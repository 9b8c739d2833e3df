/** Adapters in a model: how many parameters, which draws, what a merge touches, what detaching leaves behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { MethodName } from "../adapters/adapter.ts";
import { factor } from "../adapters/adapter.ts";
import { readWholeWeight } from "../adapters/full.ts";
import { methodNamed, methods } from "../adapters/registry.ts";
import { allocatedBytes } from "../native/device.ts";
import { createTensor, freeTensor, readBytes, readF32, readI32, sizeOf, writeF32 } from "../native/tensor.ts";
import type { Weight } from "../native/weight.ts";
import { linearNames } from "./shapes.ts";
import {
  attachDisturbed,
  closeRig,
  largestDifference,
  openRig,
  packed,
  type Rig,
  readGoldenJson,
  withTrained,
} from "./testing.ts";
import { logitsPass } from "./train-pass.ts";
import {
  type AdapterOptions,
  attachTrainables,
  countTrainable,
  freeTrainables,
  mergeTrainables,
  prepareTrainables,
  type Trainables,
} from "./trainables.ts";

// token ids below 97, so that both tiny models know them
const sequences = readGoldenJson<{ sequences: number[][] }>("gqa", "golden.json").sequences.map((one) =>
  one.map((token) => token % 97),
);
const names = Object.keys(methods) as MethodName[];
const PAPER_TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"];

let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => closeRig(rig));

function options(name: MethodName, change: Partial<AdapterOptions> = {}): AdapterOptions {
  return { method: methodNamed(name), rank: 6, alpha: 12, targets: PAPER_TARGETS, seed: 4, ...change };
}

/** Values of a whole weight. */
function valuesOf(own: Rig, weight: Weight): Float32Array {
  const tensor = createTensor(own.device, "f32", [weight.out, weight.in]);
  readWholeWeight(own.device, weight, tensor);
  const values = readF32(own.device, tensor);
  freeTensor(own.device, tensor);
  return values;
}

function allWeights(own: Rig): Map<string, Float32Array> {
  const linears = own.model.layers.flatMap((layer, i) =>
    linearNames.map((name) => [`layers.${i}.${name}`, layer.linears[name].weight] as const),
  );
  const named = [...linears, ["embedding", own.model.embedding] as const];
  return new Map(named.map(([name, weight]) => [name, valuesOf(own, weight)]));
}

describe("parameters", () => {
  test("are counted by each method's formula", () => {
    const r = 6;
    // gqa: hidden 48, heads 6 x 8, KV heads 2 x 8, ffn 80; q, k, v, up, down of 2 layers as [in, out]
    const shapes = [0, 1].flatMap(() => [
      [48, 48],
      [48, 16],
      [48, 16],
      [48, 80],
      [80, 48],
    ]) as [number, number][];
    const total = (of: (width: number, out: number) => number): number =>
      shapes.reduce((sum, [width, out]) => sum + of(width, out), 0);
    const expected: Record<MethodName, number> = {
      lora: total((width, out) => r * (width + out)),
      dora: total((width, out) => r * (width + out) + out),
      oa: total((_, out) => r * out),
      "lora-fa": total((_, out) => r * out),
      "sbora-fa": total((_, out) => r * out),
      "sbora-fb": total((width) => r * width),
      // everything: embedding (tied), seven linears a layer, two norms a layer and the last
      full: 101 * 48 + 2 * 48 * (2 * 48 + 2 * 16 + 3 * 80) + 5 * 48,
    };
    for (const name of names) {
      expect([name, countTrainable(rig.model, options(name))]).toEqual([name, expected[name]]);
      withTrained(rig, attachTrainables(rig.model, options(name), rig.scratch), ({ parameters, slots }) => {
        expect(sizeOf(parameters)).toBe(expected[name]);
        // slots lie one behind the other
        const ends = slots.map(({ offset, shape }) => offset + shape.reduce((a, b) => a * b, 1));
        expect([0, ...ends.slice(0, -1)]).toEqual(slots.map(({ offset }) => offset));
      });
    }
  });

  test("a rank beyond the narrowest output is refused for FB, beyond the input for FA and OA, never for LoRA", () => {
    const attach = (name: MethodName, rank: number): void =>
      freeTrainables(rig.model, attachTrainables(rig.model, options(name, { rank }), rig.scratch));
    expect(() => attach("sbora-fb", 17)).toThrow(
      /rank 17 is too large for SBoRA-FB on layers\.0\.self_attn\.k_proj/,
    );
    expect(() => attach("sbora-fa", 49)).toThrow(
      /rank 49 is too large for SBoRA-FA on layers\.0\.self_attn\.q_proj/,
    );
    expect(() => attach("oa", 49)).toThrow(/rank 49 is too large for OA/);
    for (const rank of [0, -1, 1.5]) expect(() => attach("lora", rank)).toThrow(/expected a whole number/);
    attach("lora", 100);
    attach("sbora-fb", 16);
    attach("sbora-fa", 48);
  });

  test("an unknown target is refused with the list of names", () => {
    expect(() => attachTrainables(rig.model, options("lora", { targets: ["qproj"] }), rig.scratch)).toThrow(
      /unknown target "qproj"; expected all-linear or names out of q_proj/,
    );
  });
});

describe("draws", () => {
  /** Bytes of every factor, by site and name. */
  function drawn(change: Partial<AdapterOptions>, name: MethodName): Map<string, string> {
    return withTrained(
      rig,
      attachTrainables(rig.model, options(name, change), rig.scratch),
      ({ adapters }) => {
        const entries = adapters.flatMap(({ site, trainable, frozen }) =>
          Object.entries({ ...trainable, ...frozen }).map(
            ([key, tensor]) => [`${site.name}.${key}`, readBytes(rig.device, tensor).toHex()] as const,
          ),
        );
        return new Map(entries);
      },
    );
  }

  for (const name of names.filter((n) => n !== "full")) {
    test(`${name}: one seed, one set of bytes; a site's draw does not depend on the other targets`, () => {
      const all = drawn({ targets: ["all-linear"] }, name);
      expect(drawn({ targets: ["all-linear"] }, name)).toEqual(all);
      for (const [key, bytes] of drawn({ targets: ["v_proj", "down_proj"] }, name)) {
        expect([key, all.get(key)]).toEqual([key, bytes]);
      }
      const others = drawn({ targets: ["all-linear"], seed: 5 }, name);
      const drawnKey = name.startsWith("sbora") ? "index" : "A";
      const keys = [...all.keys()].filter((key) => key.endsWith(`.${drawnKey}`));
      expect(keys.length).toBe(14);
      for (const key of keys) expect(others.get(key)).not.toBe(all.get(key)!);
      // every site has a draw of its own
      expect(new Set(keys.map((key) => all.get(key))).size).toBe(14);
    });
  }

  test("SBoRA stays off the indices it is to avoid", () => {
    for (const name of ["sbora-fa", "sbora-fb"] as const) {
      const index = (change: Partial<AdapterOptions>): Map<string, Set<number>> =>
        withTrained(rig, attachTrainables(rig.model, options(name, change), rig.scratch), ({ adapters }) => {
          return new Map(
            adapters.map(({ site, frozen }) => [
              site.name,
              new Set(readI32(rig.device, factor(frozen, "index"))),
            ]),
          );
        });
      const first = index({});
      const second = index({ avoid: first });
      for (const [site, chosen] of second) {
        expect(chosen.size).toBe(6);
        expect(chosen.isDisjointFrom(first.get(site)!)).toBe(true);
      }
      // 48 columns or 16 rows (k_proj) less the six
      const most = name === "sbora-fa" ? 42 : 10;
      expect(index({ avoid: first, rank: most }).size).toBe(second.size);
      expect(() => index({ avoid: first, rank: most + 1 })).toThrow(/needs as many free indices/);
    }
  });
});

describe("merging", () => {
  for (const compute of ["f32", "bf16"] as const) {
    for (const name of names.filter((n) => n !== "full")) {
      test(`${name}, ${compute} weights: only what is meant is touched, bit for bit`, async () => {
        const own = await openRig("gqa", { compute });
        const before = allWeights(own);
        const trained = attachDisturbed(own, name, 5, PAPER_TARGETS, 0.2);
        const touched = new Map<string, Set<number>>(
          trained.adapters.flatMap(({ site, frozen }) =>
            frozen.index ? [[short(site.name), new Set(readI32(own.device, frozen.index))] as const] : [],
          ),
        );
        const unmerged = logitsPass(own.model, packed(sequences), own);
        withTrained(own, trained, () => mergeTrainables(own.model, trained, own.scratch));
        const scale = Math.max(...unmerged.map(Math.abs));
        const error = largestDifference(logitsPass(own.model, packed(sequences), own), unmerged) / scale;
        expect(error).toBeLessThan(compute === "f32" ? 1e-5 : 0.1);
        for (const [weight, after] of allWeights(own)) {
          const old = before.get(weight)!;
          const targeted = PAPER_TARGETS.some((target) => weight.endsWith(target));
          const changed = after.reduce((n, v, i) => n + (v !== old[i] ? 1 : 0), 0);
          if (!targeted) expect([weight, changed]).toEqual([weight, 0]);
          else expect(changed).toBeGreaterThan(0);
          const lines = touched.get(weight);
          if (!lines) continue;
          const width = weight.endsWith("down_proj") ? 80 : 48;
          const off = after.findIndex((v, i) => {
            const line = name === "sbora-fa" ? i % width : Math.floor(i / width);
            return v !== old[i] && !lines.has(line);
          });
          expect([weight, off]).toEqual([weight, -1]);
        }
        closeRig(own);
      });
    }
  }
});

/** "layers.0.self_attn.q_proj" -> "layers.0.q_proj". */
function short(name: string): string {
  return name.replace(/\.(self_attn|mlp)\./, ".");
}

describe("detaching", () => {
  test("leaves the base as it was, and no memory behind", () => {
    const base = logitsPass(rig.model, packed(sequences), rig);
    for (const name of names.filter((n) => n !== "full")) {
      freeTrainables(rig.model, attachDisturbed(rig, name));
      const before = allocatedBytes(rig.device);
      const trained = attachDisturbed(rig, name);
      expect(logitsPass(rig.model, packed(sequences), rig)).not.toEqual(base);
      freeTrainables(rig.model, trained);
      expect(logitsPass(rig.model, packed(sequences), rig)).toEqual(base);
      expect([name, allocatedBytes(rig.device)]).toEqual([name, before]);
    }
  });

  // gqa has tied embeddings, llama3 a head of its own
  for (const name of ["gqa", "llama3"] as const) {
    test(`${name}: after full the model is what was learned, head and norms included, and can be freed`, async () => {
      const own = await openRig(name);
      const { device, model } = own;
      const base = logitsPass(model, packed(sequences), own);
      // the workspace grows once
      freeTrainables(model, attachTrainables(model, options("full"), own.scratch));
      const before = allocatedBytes(device);
      const trained: Trainables = attachTrainables(model, options("full"), own.scratch);
      const moved = readF32(device, trained.parameters).map((v, i) => v * (1 + (i % 3) / 50));
      writeF32(device, trained.parameters, moved);
      prepareTrainables(model, trained, own.scratch);
      const learned = logitsPass(model, packed(sequences), own);
      const slot = (key: string): Float32Array => {
        const { offset, shape } = trained.slots.find((s) => s.name === key)!;
        return moved.slice(offset, offset + shape.reduce((a, b) => a * b, 1));
      };
      expect(valuesOf(own, model.embedding)).toEqual(slot("embed_tokens.W"));
      expect(valuesOf(own, model.head)).toEqual(slot(name === "gqa" ? "embed_tokens.W" : "lm_head.W"));
      expect(valuesOf(own, model.layers[1]!.linears.o_proj.weight)).toEqual(
        slot("layers.1.self_attn.o_proj.W"),
      );
      freeTrainables(model, trained);
      expect(allocatedBytes(device)).toBe(before);
      expect(readF32(device, model.layers[0]!.postNorm)).toEqual(slot("layers.0.post_attention_layernorm.W"));
      expect(readF32(device, model.finalNorm)).toEqual(slot("norm.W"));
      expect(logitsPass(model, packed(sequences), own)).toEqual(learned);
      expect(largestDifference(learned, base)).toBeGreaterThan(0.05);
      closeRig(own);
    });
  }
});
