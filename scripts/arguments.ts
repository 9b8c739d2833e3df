/** What every command shares: running under citty, errors as one paragraph, flags checked before anything is loaded. */
import { type ArgsDef, defineCommand, type ParsedArgs, runMain, showUsage } from "citty";
import { InputError, messageOf } from "../src/errors.ts";
import type { Quantization } from "../src/model/nf4.ts";
import { DEVICE_NAMES, type Device, NativeError, openDevice } from "../src/native/device.ts";
import { checkFlags } from "./check-flags.ts";

export interface Command<A extends ArgsDef> {
  /** As it is typed: "bun run scripts/train.ts". */
  readonly name: string;
  readonly description: string;
  readonly args: A;
  /** Printed below the flags by --help. */
  readonly examples: string;
  readonly run: (args: ParsedArgs<A>) => Promise<void>;
}

/** Runs a command: what the user can put right ends in its message and exit code 1, a bug of ours keeps its stack trace. */
export async function runCommand<const A extends ArgsDef>(command: Command<A>): Promise<void> {
  const { name, description, args: definition, examples, run } = command;
  const main = defineCommand({
    meta: { name, description },
    args: definition,
    async run({ args, rawArgs }) {
      try {
        checkFlags(rawArgs, definition, args._);
        await run(args);
      } catch (error) {
        fail(error);
      }
    },
  });
  await runMain(main, {
    async showUsage(shown, parent) {
      await showUsage(shown, parent);
      console.log(examples);
    },
  });
}

function fail(error: unknown): never {
  // What the library refuses is nearly always the user's file (NaN weights) or machine (no memory).
  if (!(error instanceof InputError || error instanceof NativeError)) throw error;
  console.error(messageOf(error));
  if (process.env.SBORA_DEBUG) console.error(error.stack);
  process.exit(1);
}

/** A flag's text; "" counts as not given. @throws InputError saying what is expected there */
export function required(args: Record<string, unknown>, flag: string, expected: string): string {
  const value = args[flag];
  if (typeof value === "string" && value !== "") return value;
  throw new InputError(`--${flag} is missing; expected ${expected}. See --help.`);
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  /** Whole numbers only. */
  readonly whole?: boolean;
}

/** A number flag, or undefined when it is not given. @throws InputError naming flag, value and what was expected */
export function numberFlag(
  args: Record<string, unknown>,
  flag: string,
  range: NumberRange = {},
): number | undefined {
  const text = args[flag];
  if (text === undefined) return undefined;
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY, whole = false } = range;
  const value = typeof text === "string" && text.trim() !== "" ? Number(text) : Number.NaN;
  if (Number.isFinite(value) && value >= min && value <= max && (!whole || Number.isSafeInteger(value)))
    return value;
  const kind = whole ? "a whole number" : "a number";
  const limits =
    range.min !== undefined && range.max !== undefined
      ? ` from ${min} to ${max}`
      : range.min !== undefined
        ? ` of at least ${min}`
        : range.max !== undefined
          ? ` of at most ${max}`
          : "";
  throw new InputError(`--${flag} is "${text}"; expected ${kind}${limits}.`);
}

export function wholeFlag(args: Record<string, unknown>, flag: string, min: number): number | undefined {
  return numberFlag(args, flag, { min, whole: true });
}

/** One of the choices, or undefined when the flag is not given. @throws InputError with the list */
export function choiceFlag<const T extends string>(
  args: Record<string, unknown>,
  flag: string,
  choices: readonly T[],
): T | undefined {
  const text = args[flag];
  if (text === undefined) return undefined;
  const choice = choices.find((c) => c === text);
  if (choice !== undefined) return choice;
  throw new InputError(`--${flag} is "${text}"; expected one of ${choices.join(", ")}.`);
}

/** Some of the choices, in the order they stand; undefined when the flag is not given. @throws InputError with the list */
export function choicesFlag<const T extends string>(
  args: Record<string, unknown>,
  flag: string,
  choices: readonly T[],
): T[] | undefined {
  return listFlag(args, flag)?.map((name) => choiceFlag({ [flag]: name }, flag, choices)!);
}

/** Names of a comma-separated list, or undefined when the flag is not given. */
export function listFlag(args: Record<string, unknown>, flag: string): string[] | undefined {
  const text = args[flag];
  if (typeof text !== "string") return undefined;
  const names = text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  if (names.length > 0) return names;
  throw new InputError(`--${flag} is "${text}"; expected names with commas between them.`);
}

/** Every value of a flag that may be given several times (citty keeps the last one), in the order they stand. */
export function repeatedFlag(flag: string, argv: readonly string[] = process.argv.slice(2)): string[] {
  return argv.flatMap((token, i) => {
    if (token === `--${flag}`) return argv[i + 1] === undefined ? [] : [argv[i + 1]!];
    return token.startsWith(`--${flag}=`) ? [token.slice(flag.length + 3)] : [];
  });
}

/** @throws InputError when --adapter stands there twice: only one can be merged for a run, and citty would take the last */
export function oneAdapter(): void {
  const given = repeatedFlag("adapter");
  if (given.length < 2) return;
  throw new InputError(
    `--adapter is given ${given.length} times (${given.join(", ")}); expected one. scripts/merge.ts merges several into a model.`,
  );
}

export const COMPUTE_TYPES = ["f32", "bf16"] as const;

/** Flags of every command that computes. */
export const deviceFlags = {
  device: {
    type: "string",
    valueHint: DEVICE_NAMES.join("|"),
    description: "What computes (default: SBORA_DEVICE, else cpu)",
  },
  compute: {
    type: "string",
    default: "f32",
    valueHint: COMPUTE_TYPES.join("|"),
    description: "Type of the products",
  },
  threads: {
    type: "string",
    valueHint: "N",
    description: "Threads (default: the cores this process may use)",
  },
} as const;

/** Flags of every command that loads a base model. */
export const quantizeFlags = {
  quantize: {
    type: "string",
    valueHint: "nf4",
    description: "Hold the blocks' linears in 4 bits, as bitsandbytes quantizes them",
  },
  "double-quant": {
    type: "boolean",
    default: false,
    description: "With --quantize: the scales in 8 bits too",
  },
} as const;

/** @throws InputError for --double-quant alone */
export function quantizeFlag(args: Record<string, unknown>): Quantization | undefined {
  const kind = choiceFlag(args, "quantize", ["nf4"]);
  const double = args["double-quant"] === true;
  if (!kind && double)
    throw new InputError("--double-quant is about the scales of 4-bit weights; add --quantize nf4.");
  return kind && double ? "nf4-double" : kind;
}

/** From here on --device is what this process, its Workers and those it starts open by default. */
export function useDevice(args: Record<string, unknown>): void {
  const name = choiceFlag(args, "device", DEVICE_NAMES);
  if (name !== undefined) process.env.SBORA_DEVICE = name;
}

export async function openCommandDevice(args: Record<string, unknown>): Promise<Device> {
  const threads = wholeFlag(args, "threads", 1);
  useDevice(args);
  return openDevice(threads === undefined ? {} : { threads });
}

/** 1234567 -> "1.23 M"; bytes with unit "B". */
export function formatSize(value: number, unit = ""): string {
  const step = unit === "B" ? 1024 : 1000;
  const prefixes = ["", "K", "M", "G", "T"];
  let at = 0;
  let shown = value;
  while (shown >= step && at < prefixes.length - 1) {
    shown /= step;
    at++;
  }
  const digits = at === 0 ? 0 : shown < 10 ? 2 : shown < 100 ? 1 : 0;
  const suffix = unit === "B" && at > 0 ? `${prefixes[at]}iB` : `${prefixes[at]}${unit}`;
  return `${shown.toFixed(digits)} ${suffix}`.trimEnd();
}
