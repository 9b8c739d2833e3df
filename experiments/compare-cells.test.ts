import { describe, expect, test } from "bun:test";
import { differentCircumstances, differentResults, noPromise, type WholeCell } from "./compare-cells.ts";

const manifest = {
  ...{ sbora: "0.1.0", commit: "abc", bun: "1", platform: "linux", processor: "one", isa: "avx2", data: {} },
  model: { name: "tiny", fingerprint: "f" },
  trained: {
    ...{ parameters: 8, steps: 2, bestStep: 2, bestValidationLoss: 1 },
    planned: { weights: 1, trainable: 1, kept: 1, scratch: 1 },
  },
};
const tasks = { sets: { boolq: { records: 1 } }, heldOut: null };
const whole: WholeCell = {
  cell: { ...{ schemaVersion: 1, recipe: {}, recipeHash: "h", tasks, timing: { threads: 1 } }, manifest },
  predictions: [{ task: "boolq", record: 0, label: "true", text: "true" }],
  losses: [
    { step: 1, loss: 2 },
    { step: 2, loss: 1 },
  ],
};

describe("two files of one cell", () => {
  test("times, planned memory and circumstances may differ", () => {
    const planned = { weights: 2, trainable: 2, kept: 2, scratch: 2 };
    const cell = { ...whole.cell, timing: { threads: 2 }, manifest: { ...manifest, commit: "def" } };
    const other = { ...cell, manifest: { ...cell.manifest, trained: { ...manifest.trained, planned } } };
    expect(differentResults(whole, { ...whole, cell: other })).toEqual([]);
  });

  test.each([
    [
      "tasks",
      { cell: { ...whole.cell, tasks: { ...tasks, sets: { boolq: { records: 2 } } } } as WholeCell["cell"] },
    ],
    [
      "bestStep",
      { cell: { ...whole.cell, manifest: { ...manifest, trained: { ...manifest.trained, bestStep: 1 } } } },
    ],
    ["predictions[0]", { predictions: [{ ...whole.predictions[0]!, text: "false" }] }],
    ["predictions (1 lines, now 0)", { predictions: [] }],
    ["losses[1].loss", { losses: [whole.losses[0]!, { step: 2, loss: 1.5 }] }],
    ["losses (2 lines, now 1)", { losses: [whole.losses[0]!] }],
  ] as [string, Partial<WholeCell>][])("a difference is named: %s", (name, change) => {
    const differences = differentResults(whole, { ...whole, ...change });
    expect(differences).toHaveLength(1);
    expect(differences[0]).toContain(name);
  });

  test("losses that an earlier version did not keep are no difference", () => {
    expect(differentResults({ ...whole, losses: [] }, whole)).toEqual([]);
  });
});

describe("what is promised", () => {
  test("equality on one instruction set, platform, version and clean commit", () => {
    expect(noPromise(manifest, { ...manifest, processor: "another", bun: "2" })).toBeNull();
    for (const [change, why] of [
      [{ isa: "avx512" }, "avx512 on linux"],
      [{ platform: "darwin" }, "avx2 on darwin"],
      [{ commit: "def" }, "this is def"],
      [{ commit: null }, "this is no checkout"],
      [{ sbora: "0.2.0" }, "code that decides numbers"],
    ] as const) {
      expect(noPromise(manifest, { ...manifest, ...change })).toContain(why);
    }
    const dirty = { ...manifest, commit: "abc+dirty" };
    expect(noPromise(dirty, dirty)).toContain("abc+dirty");
  });

  test("circumstances are named one by one", () => {
    const there = differentCircumstances(manifest, { ...manifest, processor: "another", bun: "2" });
    expect(there).toEqual(['bun ("1", now "2")', 'processor ("one", now "another")']);
    expect(differentCircumstances(manifest, manifest)).toEqual([]);
  });
});
