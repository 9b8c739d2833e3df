/** What Figures 3 and 4 show: the curves as a picture, their figures as a table, and the paper's claims held against them. */
import type { MethodName } from "../src/adapters/adapter.ts";
import { type CsvValue, csvText } from "../src/reporting/csv.ts";
import { type CurvePanel, curveChart } from "../src/reporting/curves.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { pairedRatio } from "../src/reporting/statistics.ts";
import { right, type Section } from "../src/reporting/table.ts";
import { type Claim, claimsSection, type Verdict } from "./claims.ts";
import { curveMethods, type MemoryFigure, type MemoryPreset, PAPER_STEPS } from "./memory-recipe.ts";
import type { CurveFile } from "./memory-study.ts";
import { inMillions, methodTitle } from "./parameters.ts";

export interface MemoryReport {
  readonly figure: MemoryFigure;
  readonly preset: MemoryPreset;
  readonly modelName: string;
  /** In the order they are shown. */
  readonly curves: readonly CurveFile[];
}

const MEBIBYTE = 2 ** 20;
/** Peaks nearer than this are the collector's moments, not the method's. */
const MEMORY_NOISE = 0.01;
/** Step times say nothing while other processes take more of the machine than this. */
const MOST_OTHERS = 0.05;
/** Of the steps, the first are left out of the times: caches and clocks warm up. */
const WARM_UP = 0.1;

const seconds = (curve: CurveFile): number => curve.timing.seconds;
const methodOf = (curve: CurveFile): MethodName => curve.recipe.training.method;
const rankOf = (curve: CurveFile): number => curve.recipe.training.rank;
const ranksOf = (curves: readonly CurveFile[]): number[] => [...new Set(curves.map(rankOf))];

/** Steps behind the warm-up, and what one of them takes on average. */
function steadySteps({ timing }: CurveFile): readonly number[] {
  return timing.steps.slice(Math.min(Math.ceil(WARM_UP * timing.steps.length), timing.steps.length - 1));
}

function stepSeconds(curve: CurveFile): number {
  const steps = steadySteps(curve);
  return steps.reduce((sum, step) => sum + step, 0) / steps.length;
}

/** Colours stay with their method whatever else is shown. */
function colourOf(method: MethodName): number {
  const at = (curveMethods as readonly MethodName[]).indexOf(method);
  return at < 0 ? curveMethods.length : at + 1;
}

/** One a rank. */
export function memoryPanels(curves: readonly CurveFile[]): CurvePanel[] {
  return ranksOf(curves).map(
    (rank): CurvePanel => ({
      title: `r = ${rank}`,
      curves: curves
        .filter((curve) => rankOf(curve) === rank)
        .map((curve) => ({
          colour: colourOf(methodOf(curve)),
          label: `${methodTitle(methodOf(curve))} ${shortTime(seconds(curve))}`,
          points: curve.timing.samples.map(([time, bytes]) => [time, bytes / MEBIBYTE] as const),
        })),
    }),
  );
}

export const MEMORY_AXES = { x: "seconds since the first step", y: "resident memory, MiB" } as const;
export const MEMORY_NOTE =
  "Beside each curve: the time that its training took. The scale need not begin at 0.";

export function memoryPicture({ figure, preset, modelName, curves }: MemoryReport): string {
  return curveChart({
    title: `Figure ${figure.number}, ${modelName}, preset ${preset.name}: memory while training`,
    ...MEMORY_AXES,
    panels: memoryPanels(curves),
    note: MEMORY_NOTE,
  });
}

function shortTime(time: number): string {
  return time < 100 ? `${time.toFixed(1)} s` : formatSeconds(time);
}

/** One line a sample. */
export function memoryCsv(curves: readonly CurveFile[]): string {
  const rows = curves.flatMap((curve) =>
    curve.timing.samples.map(([time, bytes]): CsvValue[] => [methodOf(curve), rankOf(curve), time, bytes]),
  );
  return csvText(["method", "rank", "seconds", "resident_bytes"], rows);
}

/** The figures of the table, for programs. */
export function memoryJson(report: MemoryReport): string {
  const { figure, preset, modelName, curves } = report;
  const rows = curves.map((curve) => ({
    method: methodOf(curve),
    rank: rankOf(curve),
    parameters: curve.manifest.parameters,
    steps: curve.timing.steps.length,
    seconds: seconds(curve),
    stepSeconds: stepSeconds(curve),
    peakBytes: curve.timing.peak,
    foreseenBytes: curve.timing.foreseen,
    processorSeconds: curve.timing.processorSeconds,
    othersShare: curve.timing.othersShare,
  }));
  const claims = memoryClaims(curves);
  const summary = { figure: figure.name, preset: preset.name, model: modelName, curves: rows, claims };
  return `${JSON.stringify(summary, null, 2)}\n`;
}

export function memorySections(report: MemoryReport): Section[] {
  const { figure, preset, modelName, curves } = report;
  const machines = [...new Set(curves.map(machineOf))];
  const busy = curves.some(({ timing }) => timing.othersShare > MOST_OTHERS);
  const mebibytes = (bytes: number): string => (bytes / MEBIBYTE).toFixed(0);
  return [
    {
      title: `Figure ${figure.number} (the paper's: ${figure.paperModel}), preset ${preset.name}, ${modelName}, ${machines.join("; ")}`,
      table: {
        columns: [
          { title: "method" },
          right("r"),
          right("trained"),
          right("peak MiB"),
          right("foreseen MiB"),
          right("steps"),
          right("seconds"),
          right("ms a step"),
          right(`at ${PAPER_STEPS} steps`),
          right("processor s"),
          right("others %"),
        ],
        rows: curves.map((curve) => [
          methodTitle(methodOf(curve)),
          `${rankOf(curve)}`,
          inMillions(curve.manifest.parameters),
          mebibytes(curve.timing.peak),
          mebibytes(curve.timing.foreseen),
          `${curve.timing.steps.length}`,
          seconds(curve).toFixed(1),
          (1000 * stepSeconds(curve)).toFixed(0),
          formatSeconds(PAPER_STEPS * stepSeconds(curve)),
          curve.timing.processorSeconds.toFixed(1),
          (100 * curve.timing.othersShare).toFixed(0),
        ]),
      },
      paragraphs: [
        "Peak: the most that the whole process held (VmHWM), Bun, program and the model's pages included; foreseen: what train --dry-run says. Each run is a process of its own; the clock starts at the first step.",
        "Others: the share of the machine's processor time that went to other processes meanwhile.",
        ...(busy
          ? [
              `The machine was shared (more than ${100 * MOST_OTHERS} % others): these times are not the methods', and no verdict rests on them.`,
            ]
          : []),
      ],
    },
    claimsSection(`The paper's claims on Figure ${figure.number}`, memoryClaims(curves), [
      "Memory: peaks, a verdict where they are more than 1 % apart. Time: ratio of the two methods' step times, step by step on " +
        "the same records, with its 95 % interval; the runs came one after the other. The paper shows pictures; it prints no value that could stand beside these.",
    ]),
    {
      title: "What this can and cannot tell",
      paragraphs: [
        `Differs from the protocol: ${preset.differs.join("; ")}.`,
        "The paper's pictures are of its own code on one RTX 4090: how much a method saves depends on what the code keeps for its " +
          "backward pass (ours gathers SBoRA-FA's columns while it packs, and takes DoRA's norm once a step), so a claim that does " +
          "not hold here may hold there.",
      ],
    },
  ];
}

function machineOf({ manifest, timing }: CurveFile): string {
  return `${manifest.processor} ${manifest.isa}, ${timing.threads} thread${timing.threads > 1 ? "s" : ""}`;
}

/** Pairs [less, more, at most this share of it]. */
const MEMORY_ORDER = [
  ["sbora-fa", "lora"],
  ["sbora-fb", "lora"],
  ["lora", "dora"],
] as const satisfies [MethodName, MethodName][];
const TIME_ORDER = [
  ["sbora-fa", "lora", 1],
  ["sbora-fb", "lora", 1],
  ["sbora-fa", "dora", 0.5],
  ["sbora-fb", "dora", 0.5],
] as const satisfies [MethodName, MethodName, number][];

export function memoryClaims(curves: readonly CurveFile[]): Claim[] {
  return ranksOf(curves).flatMap((rank) => {
    const at = (method: MethodName): CurveFile | undefined =>
      curves.find((curve) => rankOf(curve) === rank && methodOf(curve) === method);
    const memory = MEMORY_ORDER.flatMap(([less, more]) => {
      const [a, b] = [at(less), at(more)];
      return a && b ? [memoryClaim(rank, a, b)] : [];
    });
    const time = TIME_ORDER.flatMap(([less, more, share]) => {
      const [a, b] = [at(less), at(more)];
      return a && b ? [timeClaim(rank, a, b, share)] : [];
    });
    return [...memory, ...time];
  });
}

function memoryClaim(rank: number, a: CurveFile, b: CurveFile): Claim {
  const [less, more] = [a.timing.peak, b.timing.peak];
  const clear = Math.abs(less - more) > MEMORY_NOISE * Math.max(less, more);
  const verdict: Verdict = clear ? (less < more ? "holds" : "does not hold") : "cannot be told";
  const [first, second] = [less, more].map((bytes) => (bytes / MEBIBYTE).toFixed(0));
  return {
    claim: `r=${rank}: ${titleOf(a)} needs less memory than ${titleOf(b)}`,
    verdict,
    here: `${first} against ${second} MiB`,
    paper: "",
  };
}

function timeClaim(rank: number, a: CurveFile, b: CurveFile, share: number): Claim {
  const claim =
    share === 1
      ? `r=${rank}: ${titleOf(a)} takes less time than ${titleOf(b)}`
      : `r=${rank}: ${titleOf(a)} takes less than half of ${titleOf(b)}'s time`;
  const [steps, others] = [steadySteps(a), steadySteps(b)];
  if (steps.length !== others.length || machineOf(a) !== machineOf(b)) {
    return {
      claim,
      verdict: "cannot be told",
      here: "other machines or numbers of steps",
      paper: "",
    };
  }
  const { ratio, low, high } = pairedRatio(steps, others);
  const shared = Math.max(a.timing.othersShare, b.timing.othersShare) > MOST_OTHERS;
  const verdict: Verdict =
    shared || (low <= share && high >= share) ? "cannot be told" : high < share ? "holds" : "does not hold";
  const interval = Number.isFinite(high) ? ` (${low.toFixed(2)} to ${high.toFixed(2)})` : "";
  return {
    claim,
    verdict,
    here: `${ratio.toFixed(2)} of its step time${interval}${shared ? ", on a shared machine" : ""}`,
    paper: "",
  };
}

function titleOf(curve: CurveFile): string {
  return methodTitle(methodOf(curve));
}
