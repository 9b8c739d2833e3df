/** POST /v1/completions: OpenAI's legacy route; with `echo`, `logprobs` and `max_tokens: 0` it scores given texts. */
import { answerDeltas, type Counts, type Delta, loggedCounts, usageOf } from "../answer.ts";
import { readBody, refuseUnsupported } from "../body.ts";
import { type Ctx, keepOpen, type Serving } from "../context.ts";
import { type LegacyLogprobs, legacyLogprobs } from "../logprobs.ts";
import { encodeTexts } from "../prompt.ts";
import type { FinishReason, ScoredToken } from "../protocol.ts";
import { type CompletionRequest, type CompletionResponse, completionRequest } from "../schema.ts";
import { eventStream } from "../sse.ts";
import { checkPrompt, commonOf, submit } from "../submit.ts";
import { responseHead } from "./head.ts";

/** OpenAI's default of this route. */
const DEFAULT_MAX_TOKENS = 16;

interface Prompt {
  /** null: it came as ids. */
  readonly text: string | null;
  readonly ids: readonly number[];
}

/** A choice's text and reports so far; `take` gives what is new. */
interface Choice {
  add(delta: Delta): void;
  take(): Pick<CompletionResponse["choices"][number], "text" | "logprobs">;
  finish: FinishReason | null;
}

export async function completions(serving: Serving, c: Ctx): Promise<Response> {
  const body = await readBody(c, completionRequest);
  refuseUnsupported(body);
  serving.models.find(body.model);
  const common = commonOf(serving, body);
  const logprobs = body.logprobs ?? null;
  const scorePrompt = body.echo ? logprobs : null;
  const maxTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
  const prompts = await promptsOf(serving, c, body);
  for (const { ids } of prompts) checkPrompt(serving, ids, maxTokens, "prompt");
  // Asked for again: while a long text was tokenized the adapter may have been unloaded, or loaded anew.
  const model = serving.models.find(body.model);
  const { weights } = model;
  const generations = submit(
    serving,
    prompts.map(({ ids }) => ({ ...common, weights, prompt: ids, maxTokens, logprobs, scorePrompt })),
  );
  const head = { ...responseHead(serving, model, "cmpl"), object: "text_completion" as const };
  const counts: Counts = { prompt: 0, cached: 0, completion: 0 };
  const record = c.get("record");
  record.model = model.name;
  const cancel = (): void => {
    for (const generation of generations) generation.cancel();
  };
  const { choices: n, stops } = common;
  const all = prompts.map((prompt) => {
    const scores: ScoredToken[] = [];
    const echo = body.echo ? prompt : null;
    const make = (): Choice => createChoice(serving, prompt.ids, echo, logprobs !== null, scores);
    return { scores, choices: Array.from({ length: n }, make) };
  });
  /** All prompts at once; `told` after each delta that its choice has taken in. */
  const run = async (told: (choice: Choice, index: number) => void): Promise<void> => {
    const each = generations.map(async (generation, i) => {
      const { scores, choices } = all[i]!;
      const options = { prompt: prompts[i]!.ids, choices: n, stops, counts, scores };
      for await (const delta of answerDeltas(serving, generation, options)) {
        const choice = choices[delta.choice]!;
        choice.add(delta);
        told(choice, i * n + delta.choice);
      }
    });
    try {
      await Promise.all(each);
    } finally {
      cancel();
      Object.assign(record, loggedCounts(counts));
    }
  };

  if (body.stream) {
    const withUsage = body.stream_options?.include_usage ?? false;
    const usage = withUsage ? { usage: null } : {};
    const produce = async (send: (event: CompletionResponse) => void): Promise<void> => {
      await run((choice, index) => {
        const part = choice.take();
        if (part.text === "" && part.logprobs === null && !choice.finish) return;
        send({ ...head, choices: [{ index, ...part, finish_reason: choice.finish }], ...usage });
      });
      if (withUsage) send({ ...head, choices: [], usage: usageOf(counts) });
    };
    return eventStream(c, serving, produce, cancel);
  }
  keepOpen(c);
  c.req.raw.signal.addEventListener("abort", cancel);
  await run(() => {});
  const choices = all.flatMap((prompt) => prompt.choices);
  const answer: CompletionResponse = {
    ...head,
    choices: choices.map((choice, index) => ({ index, ...choice.take(), finish_reason: choice.finish })),
    usage: usageOf(counts),
  };
  return c.json(answer);
}

async function promptsOf(
  serving: Serving,
  c: Ctx,
  { prompt, parse_special }: CompletionRequest,
): Promise<Prompt[]> {
  const given = typeof prompt === "string" ? [prompt] : isTokens(prompt) ? [prompt] : prompt;
  const texts = given.filter((one) => typeof one === "string");
  const encoded = [...(await encodeTexts(serving, c, texts, { special: parse_special ?? false }))];
  return given.map((one) =>
    typeof one === "string" ? { text: one, ids: encoded.shift()! } : { text: null, ids: one },
  );
}

/** An empty list counts as a prompt without tokens. */
function isTokens(prompt: readonly unknown[]): prompt is number[] {
  return prompt.every((one) => typeof one === "number");
}

function createChoice(
  serving: Serving,
  prompt: readonly number[],
  echo: Prompt | null,
  reported: boolean,
  scores: readonly ScoredToken[],
): Choice {
  const { tokenizer } = serving;
  const report: LegacyLogprobs | null = reported ? legacyLogprobs(serving, echo ? [] : prompt) : null;
  let text = "";
  let started = false;
  return {
    finish: null,
    add(delta) {
      if (!started && echo) {
        text = echo.text ?? tokenizer.decode(echo.ids);
        // A text comes back as it was sent, without the BOS in front of it; ids come back with every token.
        const hidden = echo.text !== null && tokenizer.bosId !== null;
        report?.push([{ token: echo.ids[0]!, logprob: null, top: [] }], !hidden);
        report?.push(scores, true);
      }
      started = true;
      text += delta.text;
      report?.push(delta.tokens, false);
      this.finish = delta.finish;
    },
    take() {
      const part = { text, logprobs: report?.take() ?? null };
      text = "";
      return part;
    },
  };
}
