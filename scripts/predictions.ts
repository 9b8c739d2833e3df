/** The file that evaluate.ts leaves its predictions in. No earlier one is ever written over. */
import { closeSync, existsSync, openSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { InputError } from "../src/errors.ts";
import { systemCode, writeProblem, writeTextFile } from "../src/formats/files.ts";

export interface PredictionFile {
  /** Writes what there is so far: a long evaluation that is stopped keeps it. */
  add(predictions: readonly object[]): void;
  /** Where they are; null before the first. */
  path(): string | null;
}

/** `given`: --out, or nothing said. @throws InputError when a file is there already, or its folder is not */
export function predictionFile(given: string | undefined): PredictionFile {
  if (given !== undefined) checkOut(given);
  const lines: string[] = [];
  let path = given;
  return {
    add(predictions) {
      // Not before there is something to write: two that run at once then take two names.
      path ??= claimFreeName();
      lines.push(...predictions.map((prediction) => JSON.stringify(prediction)));
      writeTextFile(path, `${lines.join("\n")}\n`);
    },
    path: () => path ?? null,
  };
}

function checkOut(path: string): void {
  const folder = dirname(resolve(path));
  if (!existsSync(folder)) {
    throw new InputError(`--out is "${path}", but the folder ${folder} does not exist.`);
  }
  if (!existsSync(path)) return;
  throw new InputError(
    `--out is "${path}", which is there already; expected the name of a new file for the predictions. Choose another, or move it away.`,
  );
}

/** Makes the first of predictions.jsonl, predictions-2.jsonl, … that is not there. */
function claimFreeName(): string {
  for (let number = 1; ; number++) {
    const path = number === 1 ? "predictions.jsonl" : `predictions-${number}.jsonl`;
    try {
      closeSync(openSync(path, "wx"));
      return path;
    } catch (error) {
      if (systemCode(error) !== "EEXIST") throw writeProblem(path, error);
    }
  }
}
