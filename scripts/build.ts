/** Compiles the native library, or says where it lies: path, instruction sets, seconds. */
import type { ParsedArgs } from "citty";
import { InputError } from "../src/errors.ts";
import { buildLibrary, type LibraryName } from "../src/native/build.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { choiceFlag, runCommand } from "./arguments.ts";

const LIBRARIES = [
  "cpu",
  "cuda",
  "cuda-emulated",
  "reference",
  "reference-f64",
] as const satisfies LibraryName[];

const EXAMPLES = `Examples
  bun run scripts/build.ts                                compile the CPU kernels (nothing to do when they are cached)
  bun run scripts/build.ts --library reference            the scalar kernels that tests compare with
  CXX=clang++ bun run scripts/build.ts                    with another compiler
  bun run scripts/build.ts --cuda                         the CUDA kernels, for the machine's GPU
  bun run scripts/build.ts --cuda --arch 80,90 --refuse-spills
                                                          for these cards; an error where registers do not suffice
  SBORA_SANITIZE=address,undefined bun run scripts/build.ts
                                                          instrumented; run with LD_PRELOAD="$(c++ -print-file-name=libasan.so)"

nvcc is taken from $SBORA_NVCC (a toolkit's folder will do), the PATH, $CUDA_HOME, /usr/local/cuda. A library compiled for another machine
is named there by SBORA_CUDA_LIBRARY. The cache is $SBORA_CACHE, else $XDG_CACHE_HOME/sbora or ~/.cache/sbora. Every other command compiles
by itself on first use.`;

/** Compiling for a GPU needs none: that there is none is no failure. */
async function showDevice(library: LibraryName): Promise<void> {
  try {
    const device = await openDevice({ library });
    console.log(`device   ${device.name}, ${device.threads} threads`);
    console.log(`isas     ${device.isas.join(", ")} (using ${device.isa})`);
    closeDevice(device);
  } catch (error) {
    if (library !== "cuda" || !(error instanceof InputError)) throw error;
    console.log(`device   none: ${error.message}`);
  }
}

const ARGS = {
  library: {
    type: "string",
    default: "cpu",
    valueHint: LIBRARIES.join("|"),
    description: "Which library to compile",
  },
  cuda: { type: "boolean", default: false, description: "Short for --library cuda" },
  arch: {
    type: "string",
    valueHint: "80,90",
    description: "CUDA: compute capabilities (default: SBORA_CUDA_ARCH, else the machine's GPU, else 80,90)",
  },
  "refuse-spills": {
    type: "boolean",
    default: false,
    description: "CUDA: refuse a kernel that spills registers to memory",
  },
} as const;

async function main(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const name = args.cuda ? "cuda" : choiceFlag(args, "library", LIBRARIES)!;
  if (args.arch) process.env.SBORA_CUDA_ARCH = args.arch;
  const started = performance.now();
  const path = await buildLibrary(name, { refuseSpills: args["refuse-spills"] });
  const seconds = (performance.now() - started) / 1000;
  console.log(`library  ${path}`);
  console.log(`seconds  ${seconds.toFixed(1)}`);
  // An instrumented library loads only under its runtime: printing the path is all that can be done here.
  if (process.env.SBORA_SANITIZE) return;
  // That very file is opened, whatever flags it was made with.
  if (name === "cuda") process.env.SBORA_CUDA_LIBRARY = path;
  await showDevice(name);
}

await runCommand({
  name: "bun run scripts/build.ts",
  description: "Compile the native library and print where it lies.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
