/** What the paper claims, held against what was measured: a verdict each, with the numbers it rests on. */
import type { Section } from "../src/reporting/table.ts";
import type { Difference } from "./summary.ts";

export type Verdict = "holds" | "does not hold" | "cannot be told";

export interface Claim {
  readonly claim: string;
  readonly verdict: Verdict;
  /** What was found here. */
  readonly here: string;
  /** What the paper has; "" where it prints no value. */
  readonly paper: string;
}

/** "a is above b": decided where the 95 % interval of a - b lies on one side of zero. */
export function aboveZero({ value, halfWidth }: Pick<Difference, "value" | "halfWidth">): Verdict {
  if (value - halfWidth > 0) return "holds";
  return value + halfWidth < 0 ? "does not hold" : "cannot be told";
}

/** For what is counted, not sampled. */
export function counted(holds: boolean): Verdict {
  return holds ? "holds" : "does not hold";
}

export function claimsSection(
  title: string,
  claims: readonly Claim[],
  paragraphs: readonly string[],
): Section {
  const printed = claims.some(({ paper }) => paper !== "");
  return {
    title,
    table: {
      columns: ["claim", "verdict", "here", ...(printed ? ["paper"] : [])].map((name) => ({ title: name })),
      rows: claims.map(({ claim, verdict, here, paper }) => [
        claim,
        verdict,
        here,
        ...(printed ? [paper] : []),
      ]),
    },
    paragraphs,
  };
}

/** +1.2, -0.3, 0.0 */
export function signed(value: number, digits = 1): string {
  const text = value.toFixed(digits);
  return Number(text) > 0 ? `+${text}` : text.replace(/^-(0(\.0*)?)$/, "$1");
}
