/**
 * Finds or compiles a native library. The first use compiles it with the machine's C++ compiler into a cache; the key
 * is everything the result depends on (sources, compiler, flags, architecture), so an edit or an upgrade rebuilds and
 * nothing else does.
 *
 * Environment: SBORA_LIBRARY, SBORA_CUDA_LIBRARY (path of a ready CPU or CUDA library), SBORA_CACHE (folder), CXX,
 * SBORA_SANITIZE ("address,undefined": an instrumented build, which scripts/sanitize.ts makes and runs); for CUDA see
 * `build-cuda.ts`.
 */
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { cacheFolder, findCached, removeLeftovers } from "./build-cache.ts";
import { cudaLinkFlags, emulatedUnits, findNvcc, nvccUnits, type Unit } from "./build-cuda.ts";
import { acquire } from "./build-lock.ts";
import { type Compiler, compile, fileExists, findCompiler, inParallel } from "./compiler.ts";

export { cacheFolder } from "./build-cache.ts";

/** "cuda-emulated": the CUDA library's sources on a CPU, for tests. */
export type LibraryName = "cpu" | "cuda" | "cuda-emulated" | "reference" | "reference-f64";
/** "bench" has no ABI: the loops that scripts/bench.ts measures the machine with (`peaks.ts`). */
export type BuildName = LibraryName | "bench";

export interface BuildOptions {
  /** Called with a short text when compiling starts, after every unit and at the end; default: one stderr line. */
  readonly onProgress?: (text: string) => void;
  /** CUDA: a kernel whose registers do not suffice is an error. */
  readonly refuseSpills?: boolean;
}

/** Everything a library is made from. */
interface Plan {
  readonly units: readonly Unit[];
  readonly linker: Compiler;
  readonly linkFlags: readonly string[];
}

const KERNELS = resolve(import.meta.dir, "../../kernels");
const COMMON = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-pthread"];

const SHARED_SOURCES = ["abi.cpp", "host/memory.cpp", "host/mapping.cpp", "host/indices.cpp", "host/nf4.cpp"];
/** Plain C++ of the CPU library, compiled once. */
const CPU_SOURCES = [
  ...SHARED_SOURCES,
  "cpu/pool.cpp",
  "cpu/dispatch.cpp",
  "cpu/product_workspace.cpp",
  "cpu/block_workspace.cpp",
  "cpu/weight_memory.cpp",
];
/** Compiled once for every instruction set; the processor's best is chosen when a context is opened. */
const CPU_ISA_SOURCE = "cpu/isa.cpp";

const AVX2 = ["-mavx2", "-mfma", "-mf16c"];
const AVX512 = [...AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"];
const ISA_FLAGS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  x64: [[], AVX2, AVX512, [...AVX512, "-mavx512bf16"]],
};

/** One file a family of ops: whatever the folder holds. */
function referenceSources(): string[] {
  const files = readdirSync(join(KERNELS, "reference")).filter((file) => file.endsWith(".cpp"));
  return files.sort().map((file) => `reference/${file}`);
}

function unitsOf(name: BuildName, compiler: Compiler, refuseSpills: boolean): Unit[] {
  const plain = (source: string, ...flags: string[]): Unit => ({
    compiler,
    source,
    flags: [...COMMON, ...flags],
  });
  if (name === "bench") return [plain("bench/peaks.cpp", "-O3")];
  if (name === "cuda") {
    const shared = SHARED_SOURCES.map((source) => plain(source, "-O3"));
    return [...nvccUnits(KERNELS, findNvcc(), refuseSpills), ...shared];
  }
  if (name === "cuda-emulated") {
    const shared = SHARED_SOURCES.map((source) => plain(source, "-O2"));
    return [...emulatedUnits(KERNELS, compiler, COMMON), ...shared];
  }
  if (name !== "cpu") {
    const flags = ["-O2", ...(name === "reference-f64" ? ["-DSB_REAL_DOUBLE"] : [])];
    return [...SHARED_SOURCES, ...referenceSources()].map((source) => plain(source, ...flags));
  }
  const levels = ISA_FLAGS[process.arch] ?? [[]];
  return [
    // The slowest first.
    ...levels.map((isa, level) => plain(CPU_ISA_SOURCE, "-O3", `-DSB_ISA_LEVEL=${level}`, ...isa)),
    ...CPU_SOURCES.map((source) => plain(source, "-O3")),
  ];
}

function planOf(name: BuildName, refuseSpills: boolean): Plan {
  const linker = findCompiler();
  const sanitize = name === "cuda" ? [] : sanitizeFlags();
  const units = unitsOf(name, linker, refuseSpills).map((unit) => ({
    ...unit,
    flags: [...unit.flags, ...sanitize, ...(unit.lastFlags ?? [])],
  }));
  const libraries = name === "cuda" ? cudaLinkFlags(findNvcc()) : [];
  return { units, linker, linkFlags: [...linkFlags(), ...sanitize, ...libraries] };
}

function sanitizeFlags(): string[] {
  const kinds = (process.env.SBORA_SANITIZE ?? "").trim();
  if (kinds === "") return [];
  if (!/^[a-z]+(,[a-z]+)*$/.test(kinds)) {
    throw new InputError(`SBORA_SANITIZE is "${kinds}"; expected a list such as address,undefined.`);
  }
  // Behind the unit's own flags: at -O3 an instrumented instruction set takes minutes to compile.
  return ["-O1", `-fsanitize=${kinds}`, "-g", "-fno-omit-frame-pointer"];
}

function linkFlags(): string[] {
  const flags = ["-pthread"];
  if (process.platform === "darwin") return flags;
  return [...flags, "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"];
}

const FOLDERS: Readonly<Record<BuildName, readonly string[]>> = {
  bench: ["bench"],
  cpu: ["", "host", "cpu"],
  cuda: ["", "host", "cuda"],
  "cuda-emulated": ["", "host", "cuda", "cuda/emulation"],
  reference: ["", "host", "reference"],
  "reference-f64": ["", "host", "reference"],
};

/** Every source and header the library may include, as [path relative to kernels/, text], in one fixed order. */
function sources(name: BuildName): [string, string][] {
  const files = FOLDERS[name].flatMap((folder) =>
    readdirSync(join(KERNELS, folder))
      .filter((file) => /\.(h|hpp|inc|c|cpp|cu|cuh)$/.test(file))
      .map((file) => join(folder, file)),
  );
  return files.sort().map((file) => [file, readFileSync(join(KERNELS, file), "utf8")]);
}

function cacheKey(name: BuildName, plan: Plan): string {
  const parts = [process.platform, process.arch, plan, sources(name)];
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

/** One stderr line: the text at the start, the seconds when it is done. */
function stderrLine(name: BuildName): { start(): void; end(seconds: number | null): void } {
  const what = name === "cpu" || name === "cuda" ? `${name.toUpperCase()} kernels` : `${name} kernels`;
  return {
    start: () => process.stderr.write(`compiling the ${what} for first use … `),
    end: (seconds) => process.stderr.write(seconds === null ? "failed\n" : `${seconds.toFixed(0)} s\n`),
  };
}

async function build(name: BuildName, plan: Plan, path: string, options: BuildOptions): Promise<void> {
  removeLeftovers(`libsbora-${name}`, path);
  const folder = mkdtempSync(`${path}.build-`);
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const line = options.onProgress === undefined ? stderrLine(name) : null;
  line?.start();
  options.onProgress?.(`compiling ${name}`);
  try {
    const all = plan.units;
    const objects = all.map((_, index) => join(folder, `${index}.o`));
    let done = 0;
    const jobs = all.map(({ compiler, source, flags }, index) => async () => {
      await compile(compiler, [...flags, "-c", source, "-o", objects[index]!], KERNELS);
      options.onProgress?.(`compiled ${++done} of ${all.length}: ${source}`);
    });
    await inParallel(jobs, availableParallelism());
    const result = join(folder, "library");
    await compile(plan.linker, ["-shared", ...objects, ...plan.linkFlags, "-o", result], KERNELS);
    renameSync(result, path);
    line?.end(seconds());
    options.onProgress?.(`built ${path} in ${seconds().toFixed(1)} s`);
  } catch (error) {
    line?.end(null);
    throw error instanceof InputError
      ? error
      : new InputError(`Building the ${name} library in ${folder} failed: ${messageOf(error)}.`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Path of a compiled library, compiled on first use. Two processes that start at once build once.
 * @throws InputError without a compiler, without a folder to write, or with the compiler's own message
 */
export async function buildLibrary(name: BuildName, options: BuildOptions = {}): Promise<string> {
  const ready = readyLibrary(name);
  if (ready !== null) return ready;
  const plan = planOf(name, options.refuseSpills ?? false);
  const suffix = process.platform === "darwin" ? "dylib" : "so";
  const file = `libsbora-${name}-${cacheKey(name, plan)}.${suffix}`;
  const cached = findCached(file);
  if (cached !== null) return cached;
  const path = join(cacheFolder(), file);
  const lock = await acquire(`${path}.lock`, () => fileExists(path));
  if (lock === null) return path;
  try {
    await build(name, plan, path, options);
  } finally {
    lock.release();
  }
  return path;
}

/** The library that the environment names, which is not compiled. */
function readyLibrary(name: BuildName): string | null {
  const variable = { cpu: "SBORA_LIBRARY", cuda: "SBORA_CUDA_LIBRARY" }[name as string];
  const given = variable === undefined ? undefined : process.env[variable];
  if (!given) return null;
  if (fileExists(resolve(given))) return resolve(given);
  throw new InputError(`${variable} is "${given}", which is no file. Unset it to compile the kernels.`);
}
