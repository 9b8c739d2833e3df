/** kernels/cuda/emulation/selftest.cpp: kernels that are right, or hold one planted mistake, run by the CUDA emulation. */
import { dlopen } from "bun:ffi";
import { buildLibrary } from "./build.ts";

/** Runs the kernel of this name, the threads of a block in either order: what was found, "" for nothing. */
export async function openEmulationTest(): Promise<(name: string, order: "forward" | "reversed") => string> {
  const { symbols } = dlopen(await buildLibrary("cuda-emulated"), {
    sb_emulation_test: { args: ["cstring", "i32"], returns: "cstring" },
  });
  return (name, order) =>
    `${symbols.sb_emulation_test(Buffer.from(`${name}\0`), order === "reversed" ? 1 : 0)}`;
}
