import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { InputError } from "../src/errors.ts";
import { linearNames } from "../src/model/shapes.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { table1, table2 } from "./formulas.ts";
import { countLayerOperations, countStorage, operationTable, storageTable } from "./layer-tables.ts";
import { layerSource } from "./one-layer.ts";

let device: Device;
beforeAll(async () => {
  device = await openDevice({ threads: 1 });
}, 300_000);
afterAll(() => closeDevice(device));

const planFor = (linear: string, rank: number) => ({
  preset: "tiny" as const,
  source: layerSource("tiny", { model: null, linear }),
  rank,
});

describe("the paper's formulas", () => {
  // Protocol §6.1 and §6.2 with W [out,in] = [5,7], r = 2.
  const size = { out: 5, in: 7, rank: 2 };
  test("Table 1, corrected and as printed", () => {
    const values = table1.map(({ trained, total, printed, gradient }) =>
      [trained, total, printed ?? total, gradient].map((formula) => formula.value(size)),
    );
    expect(values).toEqual([
      [24, 24, 24, 24],
      [10, 12, 16, 10],
      [14, 16, 12, 14],
    ]);
  });

  test("Table 2", () => {
    const values = table2.map(({ multiplications, additions }) => [
      multiplications.value(size),
      additions.value(size),
    ]);
    expect(values).toEqual([
      [35 + 24, 5 * 6 + 2 * 6 + 5 * 1 + 5],
      [35 + 10, 5 * 6 + 5 * 1 + 5],
      [35 + 14, 5 * 6 + 2 * 6 + 2],
    ]);
  });
});

// r = 16: indices fill whole allocation steps, so every count is exact.
describe.each(linearNames.map((name) => [name] as const))("%s of the embedded model", (linear) => {
  test("numbers given out and operations asked for are those of the formulas", () => {
    const plan = planFor(linear, 16);
    const size = { ...plan.source.shape, rank: 16 };
    const stored = countStorage(device, plan);
    for (const { method, trained, total, gradient } of table1) {
      const row = stored.find((r) => r.method === method)!;
      expect([row.trained, row.total, row.gradient]).toEqual(
        [trained, total, gradient].map((formula) => formula.value(size)),
      );
    }
    const operations = countLayerOperations(device, plan);
    for (const { method, multiplications, additions } of table2) {
      const { forward } = operations.find((r) => r.method === method)!;
      expect(forward).toEqual({
        multiplications: multiplications.value(size),
        additions: additions.value(size),
      });
    }
  });
});

test("SBoRA-FA and -FB compute and keep less than LoRA; DoRA's norm is counted once a step", () => {
  const plan = planFor("up_proj", 8);
  const [lora, dora, , , fa, fb] = countLayerOperations(device, plan);
  for (const sbora of [fa!, fb!]) {
    expect(sbora.forward.multiplications).toBeLessThan(lora!.forward.multiplications);
    expect(sbora.backward.multiplications).toBeLessThan(lora!.backward.multiplications);
    expect(sbora.step).toEqual({ multiplications: 0, additions: 0 });
  }
  expect(dora!.step.multiplications).toBeGreaterThan(8 * 256 * 128);
  const kept = countStorage(device, plan).map(({ method, savedBytes, inputBytes }) => [
    method,
    savedBytes,
    inputBytes,
  ]);
  // f32: z [r]; DoRA keeps y [out] too; the input has 128 numbers.
  expect(kept).toEqual([
    ["lora", 32, 512],
    ["dora", 32 + 1024, 512],
    ["oa", 32, 0],
    ["lora-fa", 32, 0],
    ["sbora-fa", 32, 0],
    ["sbora-fb", 0, 512],
  ]);
});

test("every claim holds at a rank that fills no allocation step", () => {
  for (const table of [storageTable, operationTable]) {
    const claims = table.counted(device, planFor("down_proj", 5)).sections.at(-1)!;
    expect(claims.table!.rows.map((row) => row[1])).toEqual(["holds", "holds", "holds"]);
  }
});

test("the paper's model needs no weights; an unknown linear or a missing model is refused", () => {
  const { dir, shape } = layerSource("paper", { model: null, linear: "down_proj" });
  expect([dir, shape.in, shape.out]).toEqual([null, 11_008, 4096]);
  expect(() => layerSource("tiny", { model: null, linear: "q" })).toThrow(InputError);
  expect(() => layerSource("small", { model: null, linear: "q_proj" })).toThrow("--model is missing");
});
