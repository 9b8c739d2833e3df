/** What is done with text, on whichever thread: the main one does the short jobs, a Worker the long ones. */
import type { ChatMessage, ChatOptions, ChatTemplate } from "../text/chat-template.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Plain data, so that it can be sent. */
export type TextJob =
  | {
      readonly kind: "encode";
      readonly texts: readonly string[];
      /** BOS in front where the model has one. */
      readonly bos: boolean;
      /** Special tokens written in the text become control tokens. */
      readonly special: boolean;
    }
  | { readonly kind: "decode"; readonly ids: readonly number[] }
  | { readonly kind: "chat"; readonly messages: readonly ChatMessage[]; readonly options: ChatOptions };

export interface TextResult {
  /** A list a text. */
  readonly ids: readonly (readonly number[])[];
  /** Decoded, or the rendered chat. */
  readonly text: string;
}

export interface TextTools {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate | null;
}

/** `limitMs`: time that a template may take. @throws InputError when the template refuses the messages, or takes longer */
export function runTextJob({ tokenizer, template }: TextTools, job: TextJob, limitMs?: number): TextResult {
  switch (job.kind) {
    case "encode":
      return { ids: job.texts.map((text) => encodeText(tokenizer, text, job)), text: "" };
    case "decode":
      return { ids: [], text: tokenizer.decode(job.ids) };
    case "chat": {
      if (!template) throw new Error("a chat was sent to a model without a template");
      const { text, ids } = template.render(job.messages, job.options, limitMs);
      return { ids: [ids], text };
    }
  }
}

function encodeText(
  tokenizer: Tokenizer,
  text: string,
  { bos, special }: { readonly bos: boolean; readonly special: boolean },
): number[] {
  if (special) return bos ? tokenizer.encode(text) : tokenizer.encodeWithoutBos(text);
  const plain = tokenizer.encodePlain(text);
  return bos && tokenizer.bosId !== null ? [tokenizer.bosId, ...plain] : plain;
}
