/**
 * An opened native library with one context. Everything above `src/native` gets a `Device` and never asks which library
 * is behind it.
 */
import { dlopen } from "bun:ffi";
import { InputError, messageOf } from "../errors.ts";
import { buildLibrary, type LibraryName } from "./build.ts";
import { usableCores } from "./cores.ts";
import { ffiTable, type NativeSymbols } from "./symbols.ts";

const ABI_VERSION = 1;
const MAX_THREADS = 1024;

/** A native call failed; the message is the library's own (`sb_last_error`). */
export class NativeError extends Error {
  override readonly name = "NativeError";
}

export interface Device {
  /** What the numbers are computed on, e.g. the processor's name. */
  readonly name: string;
  /** Library behind it: "cpu", "reference", … For manifests; nothing branches on it. */
  readonly backend: string;
  readonly isa: string;
  /** Instruction sets this processor has, worst first. */
  readonly isas: string[];
  readonly threads: number;
  /** Bytes of one "f32" element: 4, or 8 in the double build of the reference. */
  readonly realBytes: 4 | 8;
  readonly nativeBf16: boolean;
  /** For `src/native` only. */
  readonly symbols: NativeSymbols;
  /** For `src/native` only: the context's address, 0 once closed. */
  readonly context: number;
}

/** What `--device` and SBORA_DEVICE may say. */
export const DEVICE_NAMES = ["cpu", "cuda"] as const;
export type DeviceName = (typeof DEVICE_NAMES)[number];

export interface OpenOptions {
  /** Default: SBORA_DEVICE, else cpu. With SBORA_CUDA_EMULATE=1, cuda is its emulation on the CPU. */
  readonly library?: LibraryName;
  /** Default: SBORA_THREADS, else the cores this process may use. */
  readonly threads?: number;
  /** Default: SBORA_ISA, else the best this processor has. */
  readonly isa?: string;
}

/** Parts of a device that change; everyone else sees them read-only. */
interface State {
  context: number;
}

// Never closed: symbols of a closed library are undefined behaviour.
const opened = new Map<string, NativeSymbols>();
const closers = new WeakMap<Device, (() => void)[]>();

function load(path: string): NativeSymbols {
  const known = opened.get(path);
  if (known !== undefined) return known;
  let symbols: NativeSymbols;
  try {
    symbols = dlopen(path, ffiTable()).symbols as unknown as NativeSymbols;
  } catch (error) {
    throw new InputError(
      `${path} cannot be loaded: ${messageOf(error)}. Delete it to compile it again; if its folder is mounted noexec, ` +
        "set SBORA_CACHE to another.",
    );
  }
  const version = symbols.sb_abi_version();
  if (version !== ABI_VERSION) {
    throw new InputError(
      `${path} speaks ABI ${version}; this version of sbora needs ${ABI_VERSION}. Unset SBORA_LIBRARY to compile it.`,
    );
  }
  opened.set(path, symbols);
  return symbols;
}

/** Any library opened so far, for calls that need no context (`sb_map`). */
export function anyLibrary(): NativeSymbols {
  for (const symbols of opened.values()) return symbols;
  throw new Error("No native library is open yet: call openDevice first.");
}

/** Throws what the library says when `status` is not 0. */
export function check(symbols: NativeSymbols, status: number): void {
  if (status !== 0) throw new NativeError(symbols.sb_last_error() || `native status ${status}`);
}

function threadCount(given: number | undefined): number {
  const text = process.env.SBORA_THREADS;
  const threads = given ?? (text ? Number(text) : usableCores());
  if (Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS) return threads;
  const source = given === undefined ? `SBORA_THREADS is "${text}"` : `threads is ${given}`;
  throw new InputError(`${source}; expected a whole number from 1 to ${MAX_THREADS}.`);
}

/** The one place where a library is chosen; behind it a device is a device. */
export function chosenLibrary(asked?: LibraryName): LibraryName {
  const text = process.env.SBORA_DEVICE || "cpu";
  const name = asked ?? DEVICE_NAMES.find((known) => known === text);
  if (name === undefined) {
    throw new InputError(`SBORA_DEVICE is "${text}"; expected one of ${DEVICE_NAMES.join(", ")}.`);
  }
  return name === "cuda" && process.env.SBORA_CUDA_EMULATE === "1" ? "cuda-emulated" : name;
}

interface Description {
  backend: string;
  isa: string;
  isas: string[];
  device: string;
  threads: number;
  realBytes: 4 | 8;
  nativeBf16: boolean;
}

function describe(symbols: NativeSymbols, context: number): Description {
  const json = new Uint8Array(4096);
  check(symbols, symbols.sb_describe(context, json, json.byteLength));
  return JSON.parse(new TextDecoder().decode(json.subarray(0, json.indexOf(0)))) as Description;
}

/**
 * Opens a library (compiling it on first use) and one context on it.
 * @throws InputError for a bad thread count or an instruction set this processor lacks
 */
export async function openDevice(options: OpenOptions = {}): Promise<Device> {
  const library = chosenLibrary(options.library);
  const symbols = load(await buildLibrary(library));
  const threads = threadCount(options.threads);
  // The others have one form only; SBORA_ISA speaks of the processor.
  const fromEnvironment = library === "cpu" ? process.env.SBORA_ISA : undefined;
  const isa = options.isa ?? (fromEnvironment || null);
  const out = new BigInt64Array(1);
  if (symbols.sb_open(threads, isa, out) !== 0) {
    throw new InputError(`The native library could not be opened: ${symbols.sb_last_error()}.`);
  }
  const context = Number(out[0]);
  const { device, ...rest } = describe(symbols, context);
  return { name: device, ...rest, symbols, context };
}

/** Runs `action` just before the device closes (memory a wrapper keeps per device). */
export function beforeClose(device: Device, action: () => void): void {
  const list = closers.get(device);
  if (list === undefined) closers.set(device, [action]);
  else list.push(action);
}

/** Ends the context; every later call on the device throws. Memory and weights must have been freed. */
export function closeDevice(device: Device): void {
  if (device.context === 0) return;
  for (const action of closers.get(device) ?? []) action();
  closers.delete(device);
  const context = device.context;
  (device as State).context = 0;
  check(device.symbols, device.symbols.sb_close(context));
}

/** A whole number from 0 that int64 and JavaScript both hold. */
export function requireCount(what: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new TypeError(`${what} is ${value}; expected a whole number from 0.`);
}

const bytesOut = new BigInt64Array(1);

/** Sizes the workspace for the largest shapes of a plan. @returns the bytes the workspace holds now */
export function reserve(
  device: Device,
  plan: { tokens: number; width: number; rank: number; vocabulary: number },
): number {
  const { tokens, width, rank, vocabulary } = plan;
  for (const [name, value] of Object.entries(plan)) requireCount(`reserve: ${name}`, value);
  const { symbols } = device;
  check(symbols, symbols.sb_reserve(device.context, tokens, width, rank, vocabulary, bytesOut));
  return Number(bytesOut[0]);
}

/** Bytes alive on the device: tensors, weights and workspace. */
export function allocatedBytes(device: Device): number {
  check(device.symbols, device.symbols.sb_allocated(device.context, bytesOut));
  return Number(bytesOut[0]);
}

/** Waits until every op called so far is done. */
export function sync(device: Device): void {
  check(device.symbols, device.symbols.sb_sync(device.context));
}
