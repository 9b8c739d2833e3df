/** A model's chat template: messages to the ids of a prompt. The template alone says where BOS stands. */
import { join } from "node:path";
import { createContext, runInContext } from "node:vm";
import { Template } from "@huggingface/jinja";
import { InputError, messageOf } from "../errors.ts";
import { isRecord, readOptionalObject, readOptionalText } from "./json.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  /** Whatever else a template knows: name, tool calls. */
  readonly [extra: string]: unknown;
}

export interface ChatOptions {
  /** Opens the assistant's turn behind the messages. Default: true. */
  readonly addGenerationPrompt?: boolean;
  /** Further variables of the template, such as `tools`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

export interface RenderedChat {
  readonly text: string;
  readonly ids: number[];
}

export interface ChatTemplate {
  /** File it was read from. */
  readonly path: string;
  readonly source: string;
  /** SHA-256 of the source. */
  readonly sha256: string;
  /**
   * `limitMs`: processor time it may take, 2 s unless said otherwise.
   * @throws InputError when the template refuses the messages; TemplateTimeout when it takes too long
   */
  render(messages: readonly ChatMessage[], options?: ChatOptions, limitMs?: number): RenderedChat;
}

/** A template without an end, or with one too far away. */
export class TemplateTimeout extends InputError {}

/** A template is foreign code. */
const MAX_SOURCE_CHARACTERS = 1 << 20;
const MAX_RENDERED_CHARACTERS = 1 << 24;
const TIME_LIMIT_MS = 2000;

/** The folder's template; null when it has none. @throws InputError when there is one that we cannot read */
export function loadChatTemplate(dir: string, tokenizer: Tokenizer): ChatTemplate | null {
  const found = findSource(dir);
  return found && compileChatTemplate(found.source, tokenizer, found.path);
}

/** transformers looks for the file first, then into tokenizer_config.json: one template, or a list of named ones. */
function findSource(dir: string): { path: string; source: string } | null {
  const file = readOptionalText(join(dir, "chat_template.jinja"));
  if (file) return { path: file.path, source: file.text };
  const path = join(dir, "tokenizer_config.json");
  const value = readOptionalObject(path).chat_template ?? null;
  if (value === null) return null;
  if (typeof value === "string") return { path, source: value };
  const named = Array.isArray(value)
    ? value.find((entry) => isRecord(entry) && entry.name === "default")
    : null;
  if (isRecord(named) && typeof named.template === "string") return { path, source: named.template };
  throw new InputError(
    `${path}: chat_template is neither a string nor a list with a template named "default"; expected one of them. ` +
      `Correct the field, or put the template beside it as chat_template.jinja.`,
  );
}

/** `path` names the template in messages. */
export function compileChatTemplate(source: string, tokenizer: Tokenizer, path: string): ChatTemplate {
  if (source.length > MAX_SOURCE_CHARACTERS) {
    throw new InputError(
      `${path}: chat_template has ${source.length} characters, at most ${MAX_SOURCE_CHARACTERS}.`,
    );
  }
  const template = parse(source, path);
  const { bosToken, eosToken, padToken, unkToken } = tokenizer;
  const tokens = { bos_token: bosToken, eos_token: eosToken, pad_token: padToken, unk_token: unkToken };
  const known = Object.fromEntries(Object.entries(tokens).filter(([, token]) => token !== null));
  return {
    path,
    source,
    sha256: new Bun.CryptoHasher("sha256").update(source).digest("hex"),
    render(messages, { addGenerationPrompt = true, variables = {} } = {}, limitMs = TIME_LIMIT_MS) {
      // Special tokens in foreign text must not become control tokens; the template's own must (settled 29).
      const foreign = mapStrings({ messages, ...variables }, tokenizer.protect);
      const text = rendered(path, limitMs, () =>
        template.render({
          tools: null,
          documents: null,
          add_generation_prompt: addGenerationPrompt,
          ...known,
          ...foreign,
        }),
      );
      return { text: tokenizer.unprotect(text), ids: tokenizer.encodeWithoutBos(text) };
    },
  };
}

function parse(source: string, path: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    throw new InputError(`${path}: chat_template is no Jinja template we can read (${messageOf(error)}).`);
  }
}

const clock = createContext({ call: (): string => "" });

function rendered(path: string, limitMs: number, render: () => string): string {
  let text: string;
  try {
    clock.call = render;
    text = runInContext("call()", clock, { timeout: limitMs });
  } catch (error) {
    const code = isRecord(error) ? error.code : null;
    if (code === "ERR_SCRIPT_EXECUTION_TIMEOUT") {
      throw new TemplateTimeout(
        `${path}: chat_template ran for ${limitMs} ms without an end; use another template.`,
      );
    }
    throw new InputError(`${path}: chat_template refuses these messages: ${messageOf(error)}`);
  }
  if (text.length <= MAX_RENDERED_CHARACTERS) return text;
  throw new InputError(
    `${path}: chat_template made ${text.length} characters, at most ${MAX_RENDERED_CHARACTERS} are allowed; send fewer messages.`,
  );
}

/** The same structure with every string in it changed; keys stay. */
function mapStrings<T extends Record<string, unknown>>(
  value: T,
  change: (text: string) => string,
): Record<string, unknown> {
  const map = (part: unknown): unknown => {
    if (typeof part === "string") return change(part);
    if (Array.isArray(part)) return part.map(map);
    return isRecord(part) ? mapStrings(part, change) : part;
  };
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, map(part)]));
}
