import { expect, test } from "bun:test";
import { mostResidentBytes, residentBytes } from "./memory.ts";

test("64 MiB that are written to are seen while they are held, and as the most that was", async () => {
  const before = await residentBytes();
  expect(before).toBeGreaterThan(10 << 20);
  const bytes = new Uint8Array(64 << 20).fill(1);
  const held = await residentBytes();
  expect(held - before).toBeGreaterThan(56 << 20);
  expect(bytes[bytes.length - 1]).toBe(1);
  const most = mostResidentBytes();
  // the kernel counts the most by and by
  if (process.platform === "linux") expect(most).toBeGreaterThan(held - (8 << 20));
  else expect(most).toBeNull();
});
