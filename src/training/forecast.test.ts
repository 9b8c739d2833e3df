/** What is foreseen is made of what is planned, reserved and measured. How near it comes to a process: `bench.ts memory`. */
import { expect, test } from "bun:test";
import { methodNamed } from "../adapters/registry.ts";
import { readLlamaConfig } from "../formats/hf-config.ts";
import { testdata } from "../model/testing.ts";
import { allocatedBytes, closeDevice, openDevice } from "../native/device.ts";
import { forecastMemory } from "./forecast.ts";
import { planTraining } from "./plan.ts";

test("plan, workspace, copies and the process as it is; the workspace is the one a run takes", async () => {
  const config = readLlamaConfig(testdata("gqa"));
  const adapter = { method: methodNamed("lora"), rank: 5, alpha: 10, targets: ["all-linear"], seed: 1 };
  const plan = planTraining(config, { compute: "f32", positions: 64 }, adapter, 0, 64, 4);
  const device = await openDevice({ threads: 1 });
  const before = allocatedBytes(device);
  const forecast = await forecastMemory(device, { config, plan, maxTokens: 64, rank: 5, copies: 2 });
  const { process: resident, workspace, copies, total, ...planned } = forecast;
  const { parameters, recompute: _, ...parts } = plan;
  expect(planned).toEqual(parts);
  expect(copies).toBe(8 * parameters);
  expect(workspace).toBe(allocatedBytes(device) - before);
  expect(workspace).toBeGreaterThan(0);
  expect(resident).toBeGreaterThan(10 << 20);
  const sum = Object.values(planned).reduce((all, bytes) => all + bytes, 0);
  expect(total).toBeGreaterThanOrEqual(sum + workspace + copies + resident);
  closeDevice(device);
});
