/** Finding nvcc and choosing architectures; where there is an nvcc, the whole CUDA library is compiled as CI wants it. */
import { dlopen } from "bun:ffi";
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLibrary } from "./build.ts";
import { architectures, findNvcc, REFUSE_SPILLS } from "./build-cuda.ts";
import { compile } from "./compiler.ts";
import { chosenLibrary, openDevice } from "./device.ts";
import { ffiTable, type NativeSymbols } from "./symbols.ts";

const FOLDER = mkdtempSync(join(tmpdir(), "sbora-nvcc-"));
afterAll(() => rmSync(FOLDER, { recursive: true }));

function machineNvcc(): boolean {
  try {
    findNvcc();
    return true;
  } catch {
    return false;
  }
}

/** Sets environment variables for as long as `use` runs. */
async function withEnvironment<T>(changes: Record<string, string>, use: () => T | Promise<T>): Promise<T> {
  const before = Object.keys(changes).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, changes);
  try {
    return await use();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

describe("findNvcc", () => {
  test("without one says what to install", () => {
    expect(() => findNvcc({ PATH: FOLDER, CUDA_HOME: FOLDER })).toThrow(
      /found no nvcc \(tried .*bin\/nvcc.*pip install nvidia-cuda-nvcc .*SBORA_NVCC/,
    );
    expect(() => findNvcc({ SBORA_NVCC: "/nowhere/nvcc" })).toThrow(
      /^SBORA_NVCC is "\/nowhere\/nvcc", but `\/nowhere\/nvcc --version` does not run\./,
    );
  });

  test("SBORA_NVCC is nvcc or a toolkit's folder, and goes before the PATH", () => {
    mkdirSync(join(FOLDER, "cu13/bin"), { recursive: true });
    const path = join(FOLDER, "cu13/bin/nvcc");
    const script = "#!/bin/sh\necho NVIDIA\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n";
    writeFileSync(path, script, { mode: 0o755 });
    for (const given of [path, join(FOLDER, "cu13")]) {
      expect(findNvcc({ SBORA_NVCC: given, PATH: process.env.PATH })).toEqual({
        command: [path],
        version: "Cuda compilation tools, release 13.0, V13.0.88",
        root: join(FOLDER, "cu13"),
      });
    }
    expect(findNvcc({ PATH: join(FOLDER, "cu13/bin") }).command).toEqual([path]);
    expect(findNvcc({ PATH: "", CUDA_HOME: join(FOLDER, "cu13") }).command).toEqual([path]);
  });
});

test("architectures are a list of numbers from 80", () => {
  expect(architectures({ SBORA_CUDA_ARCH: "90, 80,90,120" })).toEqual([80, 90, 120]);
  for (const text of ["75", "8.0", "sm_90", "80,,90"]) {
    expect(() => architectures({ SBORA_CUDA_ARCH: text })).toThrow(
      `The CUDA architectures are "${text}"; expected compute capabilities from 80`,
    );
  }
});

test("--device cuda is the CUDA library, or its emulation where that is asked for", async () => {
  const chosen = (changes: Record<string, string>) =>
    withEnvironment({ SBORA_DEVICE: "", SBORA_CUDA_EMULATE: "", ...changes }, () => chosenLibrary());
  expect(await chosen({})).toBe("cpu");
  expect(await chosen({ SBORA_DEVICE: "cuda" })).toBe("cuda");
  expect(await chosen({ SBORA_DEVICE: "cuda", SBORA_CUDA_EMULATE: "1" })).toBe("cuda-emulated");
  expect(await chosen({ SBORA_CUDA_EMULATE: "1" })).toBe("cpu");
  await expect(chosen({ SBORA_DEVICE: "tpu" })).rejects.toThrow(
    'SBORA_DEVICE is "tpu"; expected one of cpu, cuda.',
  );
  const missing = { SBORA_CUDA_LIBRARY: join(FOLDER, "missing.so") };
  await expect(withEnvironment(missing, () => openDevice({ library: "cuda" }))).rejects.toThrow(
    /^SBORA_CUDA_LIBRARY is ".*missing\.so", which is no file/,
  );
});

/** 64 values held across a barrier by threads that have 32 registers each. */
const SPILLING = `
__global__ void __launch_bounds__(1024, 2) spill(const float *from, float *to) {
  float values[64];
#pragma unroll
  for (int i = 0; i < 64; i++) values[i] = from[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; i++) to[i * 1024 + threadIdx.x] = values[i] * values[63 - i];
}`;

test.skipIf(!machineNvcc())(
  "a kernel that spills is refused where spills are",
  async () => {
    writeFileSync(join(FOLDER, "spill.cu"), SPILLING);
    const args = ["-arch=sm_80", "-c", "spill.cu", "-o", "spill.o"];
    await compile(findNvcc(), args, FOLDER);
    await expect(compile(findNvcc(), [...REFUSE_SPILLS, ...args], FOLDER)).rejects.toThrow(/spill/i);
  },
  120_000,
);

test.skipIf(!machineNvcc())(
  "nvcc compiles every kernel for sm_80 and sm_90a without a spill, and the library loads without a driver",
  async () => {
    const path = await withEnvironment({ SBORA_CUDA_ARCH: "80,90", SBORA_CUDA_LIBRARY: "" }, () =>
      buildLibrary("cuda", { refuseSpills: true }),
    );
    const symbols = dlopen(path, ffiTable()).symbols as unknown as NativeSymbols;
    const out = new BigInt64Array(1);
    if (symbols.sb_open(1, null, out) === 0) {
      symbols.sb_close(Number(out[0])); // There is a GPU.
      return;
    }
    expect(symbols.sb_last_error()).toMatch(
      /^sb_open: (no CUDA device can be used \(.+\); expected an NVIDIA GPU and its driver|the device is sm_)/,
    );
  },
  1_200_000,
);
