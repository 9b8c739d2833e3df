/** Learning-rate schedules as Hugging Face computes them: the first optimizer step of a warm-up runs at rate 0. */
export const scheduleNames = ["linear", "cosine", "constant"] as const;
export type ScheduleName = (typeof scheduleNames)[number];

export interface Schedule {
  readonly name: ScheduleName;
  readonly peak: number;
  readonly warmup: number;
  /** Length of the schedule in optimizer steps; a run may stop earlier. */
  readonly steps: number;
}

/** Learning rate of optimizer step `step`, counted from 0. `constant` ignores warm-up, as transformers does. */
export function learningRate({ name, peak, warmup, steps }: Schedule, step: number): number {
  if (name === "constant") return peak;
  if (step < warmup) return (peak * step) / Math.max(1, warmup);
  if (step >= steps) return 0;
  const progress = (step - warmup) / (steps - warmup);
  if (name === "linear") return peak * (1 - progress);
  return peak * 0.5 * (1 + cosineOfPi(progress));
}

/**
 * cos(πx) for x in [0,1] by its Taylor series around the nearest quarter: JavaScript's Math.cos may differ between
 * engines, and a resumed run must give the same bytes.
 */
function cosineOfPi(x: number): number {
  if (x > 0.5) return -cosineOfPi(1 - x);
  const y = (Math.PI * x) ** 2;
  let term = 1;
  let sum = 1;
  for (let i = 1; i < 14; i++) {
    term *= -y / ((2 * i - 1) * (2 * i));
    sum += term;
  }
  return sum;
}
