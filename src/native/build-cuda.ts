/**
 * How the CUDA library is compiled: by nvcc for a GPU, or the very same files by the C++ compiler on the emulation
 * (kernels/cuda/emulation), which tests run without a GPU.
 *
 * Environment: SBORA_NVCC (nvcc, or the folder of a toolkit, such as `site-packages/nvidia/cu13` of NVIDIA's Python
 * packages), SBORA_CUDA_ARCH ("80,90": compute capabilities to compile for; default: that of the machine's GPU).
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { InputError } from "../errors.ts";
import { COMPILER_ENV, type Compiler } from "./compiler.ts";

export interface Unit {
  readonly compiler: Compiler;
  readonly source: string;
  readonly flags: readonly string[];
  /** Behind those of a sanitizer. */
  readonly lastFlags?: readonly string[];
}

/** What a machine without a GPU compiles for: Ampere and Hopper, and newer cards through the former's PTX. */
const DEFAULT_ARCHITECTURES = "80,90";
/** kernels/cuda needs bf16 and cp.async. */
const LEAST_ARCHITECTURE = 80;

/** What the emulation's threads are switched by: to ThreadSanitizer its own notes are what they are, shared by all. */
const UNWATCHED = "block.cpp";

/** Floating point as the emulation has it: nothing is contracted, `fmaf` is written where it is meant. */
const NVCC_FLAGS = ["-std=c++20", "-O3", "-fmad=false", "-Xcompiler", "-fPIC,-fvisibility=hidden,-pthread"];
/** A register spilled to memory is an error (`BuildOptions.refuseSpills`). */
export const REFUSE_SPILLS = ["-Xptxas", "-warn-spills,-Werror"];

function cudaSources(kernels: string): string[] {
  const files = readdirSync(join(kernels, "cuda")).filter((file) => file.endsWith(".cu"));
  return files.sort().map((file) => `cuda/${file}`);
}

/** Units of the emulated library beside the shared ones; `common`: flags of every C++ unit. */
export function emulatedUnits(kernels: string, compiler: Compiler, common: readonly string[]): Unit[] {
  const emulation = readdirSync(join(kernels, "cuda/emulation")).filter((file) => file.endsWith(".cpp"));
  // A vector load of four elements is a cast that C++ does not allow. nvcc does.
  const flags = [...common, "-O2", "-fno-strict-aliasing", "-Wno-unknown-pragmas"];
  return [
    ...emulation.sort().map((file) => ({
      ...{ compiler, source: `cuda/emulation/${file}`, flags },
      lastFlags: file === UNWATCHED ? ["-fno-sanitize=thread"] : [],
    })),
    ...cudaSources(kernels).map((source) => ({ compiler, source, flags: [...flags, "-x", "c++"] })),
  ];
}

export function nvccUnits(kernels: string, nvcc: Nvcc, refuseSpills: boolean): Unit[] {
  const flags = [...NVCC_FLAGS, ...architectureFlags(), ...(refuseSpills ? REFUSE_SPILLS : [])];
  return cudaSources(kernels).map((source) => ({ compiler: nvcc, source, flags }));
}

/** Static cudart: the library loads where there is neither a driver nor a toolkit, and says so when it is opened. */
export function cudaLinkFlags({ root }: Nvcc): string[] {
  const folders = ["lib64", "lib", `targets/${process.arch === "arm64" ? "sbsa" : "x86_64"}-linux/lib`];
  const present = folders.map((folder) => join(root, folder)).filter((folder) => existsSync(folder));
  return [...present.map((folder) => `-L${folder}`), "-lcudart_static", "-ldl", "-lrt"];
}

// ---- which architectures ------------------------------------------------------------------------------------------------

/** "9.0" of the first GPU, null where the driver's tool does not run. */
function capabilityOfMachine(): string | null {
  try {
    const child = Bun.spawnSync(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], {
      stdout: "pipe",
      stderr: "ignore",
    });
    const first = child.stdout.toString().split("\n")[0]?.trim() ?? "";
    return child.exitCode === 0 && /^\d+\.\d$/.test(first) ? first : null;
  } catch {
    return null;
  }
}

/** Compute capabilities to compile for, as whole numbers, ascending. @throws InputError for a bad SBORA_CUDA_ARCH */
export function architectures(env: NodeJS.ProcessEnv = process.env): number[] {
  const text = env.SBORA_CUDA_ARCH || capabilityOfMachine()?.replace(".", "") || DEFAULT_ARCHITECTURES;
  const numbers = text.split(",").map((part) => (/^\s*\d{2,3}\s*$/.test(part) ? Number(part) : Number.NaN));
  if (numbers.every((number) => number >= LEAST_ARCHITECTURE))
    return [...new Set(numbers)].sort((a, b) => a - b);
  throw new InputError(
    `The CUDA architectures are "${text}"; expected compute capabilities from ${LEAST_ARCHITECTURE}, such as 80,90.`,
  );
}

function architectureFlags(): string[] {
  const all = architectures();
  // Hopper's own instructions are in 90a only.
  const names = all.map((number) => (number === 90 ? "90a" : `${number}`));
  const code = names.map((name) => `-gencode=arch=compute_${name},code=sm_${name}`);
  return [...code, `-gencode=arch=compute_${all[0]},code=compute_${all[0]}`];
}

// ---- nvcc ------------------------------------------------------------------------------------------------------------

export interface Nvcc extends Compiler {
  /** The toolkit's folder. */
  readonly root: string;
}

const ADVICE =
  "Install NVIDIA's CUDA toolkit (12.4 or newer), or its Python packages: pip install nvidia-cuda-nvcc nvidia-cuda-crt " +
  "nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl, and set SBORA_NVCC to their folder, site-packages/nvidia/cu13. " +
  "A library that was compiled elsewhere (scripts/build.ts --cuda --arch 80,90) is taken from SBORA_CUDA_LIBRARY.";

function candidates(env: NodeJS.ProcessEnv): string[] {
  const given = (env.SBORA_NVCC ?? "").trim();
  if (given !== "") return [given];
  const homes = [env.CUDA_HOME, env.CUDA_PATH, "/usr/local/cuda"].filter(
    (home) => home !== undefined && home !== "",
  );
  const onPath = Bun.which("nvcc", { PATH: env.PATH ?? "" });
  return [...(onPath === null ? [] : [onPath]), ...homes.map((home) => join(home!, "bin/nvcc"))];
}

/** The line that says which release it is: the first is the same for all. */
function versionOf(path: string): string | null {
  try {
    const child = Bun.spawnSync([path, "--version"], { stdout: "pipe", stderr: "ignore", env: COMPILER_ENV });
    const line = child.stdout
      .toString()
      .split("\n")
      .find((each) => each.includes("release"));
    return child.exitCode === 0 && line !== undefined ? line.trim() : null;
  } catch {
    return null;
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** $SBORA_NVCC, else nvcc on the PATH, else below CUDA_HOME, CUDA_PATH, /usr/local/cuda. @throws InputError with what to install */
export function findNvcc(env: NodeJS.ProcessEnv = process.env): Nvcc {
  const tried = candidates(env).map((each) => resolve(isFolder(each) ? join(each, "bin/nvcc") : each));
  for (const path of tried) {
    const version = versionOf(path);
    if (version !== null) return { command: [path], version, root: dirname(dirname(path)) };
  }
  const given = (env.SBORA_NVCC ?? "").trim();
  throw new InputError(
    given === ""
      ? `--device cuda compiles its kernels on first use and found no nvcc (tried ${tried.join(", ")}). ${ADVICE}`
      : `SBORA_NVCC is "${given}", but \`${tried[0]} --version\` does not run. ${ADVICE}`,
  );
}
