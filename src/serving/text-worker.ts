/** The thread of long texts: one tokenizer, one job after the other. It runs as a bundle, see long-texts.ts. */
import { InputError } from "../errors.ts";
import { loadChatTemplate } from "../text/chat-template.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import type { FromTextWorker, ToTextWorker } from "./long-texts.ts";
import { runTextJob, type TextTools } from "./text-job.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToTextWorker>) => void) | null;
  postMessage(message: FromTextWorker): void;
};

let tools: TextTools | null = null;

function open(dir: string): TextTools {
  const tokenizer = loadTokenizer(dir);
  return { tokenizer, template: loadChatTemplate(dir, tokenizer) };
}

self.onmessage = ({ data: { dir, job } }) => {
  try {
    tools ??= open(dir);
    self.postMessage({ result: runTextJob(tools, job), refusal: null });
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    self.postMessage({ result: null, refusal: error.message });
  }
};
