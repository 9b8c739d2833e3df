/** Every prompt format by name. A new one is one file and one entry here; `--prompt`'s choices derive from this list. */
import { InputError } from "../../errors.ts";
import { alpaca } from "./alpaca.ts";
import { llmAdapters } from "./llm-adapters.ts";
import { plain } from "./plain.ts";
import type { PromptFormat } from "./prompt.ts";

export const promptFormats: readonly PromptFormat[] = [llmAdapters, alpaca, plain];

/** @throws InputError with the list of names. */
export function promptNamed(name: string): PromptFormat {
  const format = promptFormats.find((f) => f.name === name);
  if (format) return format;
  throw new InputError(
    `unknown prompt format "${name}"; expected one of ${promptFormats.map((f) => f.name).join(", ")}`,
  );
}

/** SHA-256 of what a format makes of a fixed record: two runs asked in the same words exactly when this is equal. */
export function promptHash(format: PromptFormat): string {
  const forms = ["", "{input}"].flatMap((input) => {
    const record = { instruction: "{instruction}", input };
    return [format.train(record), format.test(record)];
  });
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(forms)).digest("hex");
}
