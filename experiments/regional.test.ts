import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { bytesOf } from "../src/formats/half.ts";
import { openModelTensors, type TensorEntry, writeSafetensors } from "../src/formats/safetensors.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { regionOf, relative } from "./regional.ts";
import {
  regionalCsv,
  regionalJson,
  regionalOf,
  regionalPicture,
  regionalSections,
} from "./regional-report.ts";
import { withTrainedMerges } from "./regional-study.ts";
import { TINY_MODEL, writeTinySums } from "./tiny/data.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-regional-test-"));
let device: Device;
beforeAll(async () => {
  device = await openDevice();
}, 300_000);
afterAll(() => {
  closeDevice(device);
  rmSync(dir, { recursive: true, force: true });
});

let files = 0;
function entry(values: readonly number[], shape: readonly number[]): TensorEntry {
  const folder = join(dir, `${files++}`);
  const bytes = bytesOf(Float32Array.from(values));
  Bun.spawnSync(["mkdir", "-p", folder]);
  writeSafetensors(join(folder, "model.safetensors"), [
    { name: "W", dtype: "F32", shape: [...shape], bytes },
  ]);
  return openModelTensors(folder).get("W")!;
}

describe("regionOf", () => {
  test("columns, rows and sizes of a change, from the files", () => {
    const before = entry([1, 2, 3, 4, 5, 6], [2, 3]);
    const found = regionOf(before, entry([1, 2.5, 3, 4, 5, 7], [2, 3]));
    expect(found).toMatchObject({
      rows: 2,
      columns: 3,
      changed: 2,
      changedRows: [0, 1],
      changedColumns: [1, 2],
    });
    expect([...found.magnitude]).toEqual([0, 0.5, 0, 0, 0, 1]);
    expect([...relative(found.magnitude)]).toEqual([0, 0.5, 0, 0, 0, 1]);
    expect(regionOf(before, before)).toMatchObject({ changed: 0, changedRows: [], changedColumns: [] });
    expect([...relative(new Float32Array(2))]).toEqual([0, 0]);
  });

  test("another shape is no merge of it", () => {
    expect(() => regionOf(entry([1, 2], [1, 2]), entry([1, 2], [2, 1]))).toThrow(InputError);
  });
});

test("merged by each method: SBoRA-FA changes r columns, -FB r rows, LoRA the whole matrix", async () => {
  writeTinySums(dir);
  const dataFile = join(dir, "ft-training_set", "tiny_math.json");
  const base = openModelTensors(TINY_MODEL);
  const matrix = "model.layers.1.mlp.down_proj.weight";
  const adapted = [...base.keys()].filter((name) => /(q|k|v|up|down)_proj/.test(name));
  const methods = ["lora", "sbora-fa", "sbora-fb"] as const;
  const made = { device, modelDir: TINY_MODEL, dataFile, methods, rank: 4, steps: 3, onStep: () => {} };
  await withTrainedMerges(made, (merged) => {
    const report = { modelName: "tiny", matrix, base, adapted, merged };
    const found = regionalOf(report);
    expect(found.map(({ model }) => [model.method, model.rank])).toEqual(methods.map((name) => [name, 4]));
    const [lora, fa, fb] = found.map(({ region }) => [
      region.changedColumns.length,
      region.changedRows.length,
    ]);
    // [128,256]
    expect([lora![0], fa![0], fb![1]]).toEqual([256, 4, 4]);
    expect(lora![1]).toBeGreaterThan(100);
    expect(found.map(({ elsewhere }) => elsewhere)).toEqual([0, 0, 0]);
    const [table, claims] = regionalSections(report, found);
    expect(table!.table!.rows[1]!.slice(0, 2)).toEqual(["SBoRA-FA, r = 4", "4 of 256"]);
    expect(claims!.table!.rows.map((row) => row[1])).toEqual(["holds", "holds"]);
    expect(regionalPicture(report, found).match(/data:image\/png;base64,/g)).toHaveLength(3);
    const columns = regionalCsv(found)
      .split("\n")
      .filter((line) => line.startsWith("sbora-fa,sbora-fa,column"));
    expect(columns).toHaveLength(4);
    expect(JSON.parse(regionalJson(report, found))).toMatchObject({ matrix, merged: [{}, { rank: 4 }, {}] });
    const foreign = { ...merged[0]!, tensors: new Map() };
    expect(() => regionalOf({ ...report, merged: [foreign] })).toThrow("there is no tensor");
  });
}, 300_000);
