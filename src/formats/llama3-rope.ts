/** LLaMA 3.1's RoPE scaling as GGUF has it: `rope_freqs.weight`, f32 divisors of the frequencies, [headSize / 2]. */
import type { LlamaConfig, RopeScalingConfig } from "./hf-config.ts";

export const ROPE_FACTORS = "rope_freqs.weight";

type Llama3Scaling = Extract<RopeScalingConfig, { readonly type: "llama3" }>;
type Rotation = Pick<LlamaConfig, "ropeTheta" | "headSize">;

/** What every model that has such a tensor was made with; files differ in the factor alone (8, for small ones 32). */
const PUBLISHED = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 } as const;
/** llama.cpp computes the divisors with f32 frequencies, which the smooth part amplifies. */
const TOLERANCE = 1e-4;

/** The divisors of a model; null for models without this scaling. */
export function ropeFactors({ ropeScaling, ...rotation }: LlamaConfig): Float32Array | null {
  return ropeScaling?.type === "llama3" ? factorsOf(ropeScaling, rotation) : null;
}

function factorsOf(scaling: Llama3Scaling, { ropeTheta, headSize }: Rotation): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  return Float32Array.from({ length: headSize / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta ** ((2 * i) / headSize);
    if (wavelength < originalMaxPositions / highFreqFactor) return 1;
    if (wavelength > originalMaxPositions / lowFreqFactor) return factor;
    const smooth = (originalMaxPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** The scaling whose divisors these are, to the last digits that f32 arithmetic leaves; null when there is none. */
export function scalingOfFactors(divisors: Float32Array, rotation: Rotation): Llama3Scaling | null {
  // The slowest frequencies are divided by the whole factor.
  const factor = divisors.at(-1) ?? 1;
  const scaling: Llama3Scaling = { type: "llama3", factor, ...PUBLISHED };
  const expected = factorsOf(scaling, rotation);
  const same = divisors.length === expected.length && divisors.every((d, i) => near(d, expected[i]!));
  return factor > 1 && same ? scaling : null;
}

function near(a: number, b: number): boolean {
  return Math.abs(a - b) <= TOLERANCE * Math.abs(b);
}
