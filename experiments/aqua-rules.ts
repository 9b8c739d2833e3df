/** AQuA by both rules side by side: the published one takes the first capital A to E, the strict one the last "answer is X". */
import { strictLetter } from "../src/evaluation/tasks/aqua.ts";
import { mean } from "../src/reporting/statistics.ts";
import { MISSING, right, type Section } from "../src/reporting/table.ts";
import { methodTitle } from "./parameters.ts";
import type { Outcome, Row } from "./summary.ts";

const TASK = "AQuA";

interface Letters {
  /** Percent right by the published rule, and by the strict one. */
  readonly published: number;
  readonly strict: number;
  /** Percent of responses in which the strict rule finds a letter. */
  readonly found: number;
}

/** null where no cell has generated answers to AQuA. */
export function lettersOf(row: Row): Letters | null {
  const perSeed = row.outcomes.map(lettersIn).filter((letters) => letters !== null);
  if (perSeed.length === 0) return null;
  const over = (read: (letters: Letters) => number): number => mean(perSeed.map(read));
  return {
    published: over((l) => l.published),
    strict: over((l) => l.strict),
    found: over((l) => l.found),
  };
}

function lettersIn({ predictions }: Outcome): Letters | null {
  const answers = predictions.filter(({ task, text }) => task === TASK && text !== undefined);
  if (answers.length === 0) return null;
  const strict = answers.map(({ text }) => strictLetter(text!));
  const percent = (hits: readonly boolean[]): number => (100 * hits.filter(Boolean).length) / hits.length;
  return {
    published: percent(answers.map(({ correct }) => correct === true)),
    strict: percent(answers.map(({ label }, i) => strict[i] === label)),
    found: percent(strict.map((letter) => letter !== "")),
  };
}

/** null where the test set is not there. */
export function letterSection(rows: readonly Row[]): Section | null {
  const letters = rows.map((row) => ({ row, letters: lettersOf(row) }));
  if (letters.every((entry) => entry.letters === null)) return null;
  const shown = (value: number | undefined): string => value?.toFixed(1) ?? MISSING;
  return {
    title: "AQuA by two rules, %",
    table: {
      columns: [
        { title: "method" },
        right("r"),
        right("published rule"),
        right("strict rule"),
        right("strict letter found"),
      ],
      rows: letters.map(({ row, letters: own }) => [
        methodTitle(row.method),
        row.rank > 0 ? `${row.rank}` : "",
        shown(own?.published),
        shown(own?.strict),
        shown(own?.found),
      ]),
    },
    paragraphs: [
      'The published rule takes the first capital A to E anywhere ("By algebra" is B, "Answer: B" is A), and it is what the ' +
        'averages above use; the strict one takes the letter of the last "answer is X".',
    ],
  };
}
