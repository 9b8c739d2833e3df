/** POST /v1/chat/completions */
import { answerDeltas, type Counts, loggedCounts, usageOf } from "../answer.ts";
import { readBody, refuseUnsupported } from "../body.ts";
import { type Ctx, keepOpen, type Serving } from "../context.ts";
import { badRequest } from "../errors.ts";
import { chatLogprobs } from "../logprobs.ts";
import { renderChat } from "../prompt.ts";
import type { ScoredToken } from "../protocol.ts";
import { type ChatChunk, type ChatResponse, chatRequest } from "../schema.ts";
import { eventStream } from "../sse.ts";
import { checkPrompt, commonOf, submit } from "../submit.ts";
import { responseHead } from "./head.ts";

export async function chat(serving: Serving, c: Ctx): Promise<Response> {
  const body = await readBody(c, chatRequest);
  refuseUnsupported(body);
  serving.models.find(body.model);
  const common = commonOf(serving, body);
  const logprobs = body.logprobs ? (body.top_logprobs ?? 0) : null;
  if ((body.top_logprobs ?? null) !== null && !body.logprobs)
    throw badRequest("top_logprobs needs logprobs: true.", "top_logprobs");
  const variables = body.chat_template_kwargs ?? {};
  const { ids: prompt } = await renderChat(serving, c, body.messages, { variables });
  const wanted = body.max_completion_tokens ?? body.max_tokens ?? null;
  const maxTokens = checkPrompt(serving, prompt, wanted, "messages");
  // Asked for again: while a long text was tokenized the adapter may have been unloaded, or loaded anew.
  const model = serving.models.find(body.model);
  const { weights } = model;
  const [generation] = submit(serving, [
    { ...common, weights, prompt, maxTokens, logprobs, scorePrompt: null },
  ]);
  const head = responseHead(serving, model, "chatcmpl");
  const counts: Counts = { prompt: 0, cached: 0, completion: 0 };
  const record = c.get("record");
  record.model = model.name;
  const deltas = answerDeltas(serving, generation!, {
    prompt,
    choices: common.choices,
    stops: common.stops,
    counts,
  });
  const note = (): void => void Object.assign(record, loggedCounts(counts));
  const reported = (tokens: readonly ScoredToken[]): ReturnType<typeof chatLogprobs> | null =>
    logprobs === null ? null : chatLogprobs(serving, tokens);

  if (body.stream) {
    const withUsage = body.stream_options?.include_usage ?? false;
    const chunk = (choices: ChatChunk["choices"], usage: ChatChunk["usage"] = null): ChatChunk => ({
      ...head,
      object: "chat.completion.chunk",
      choices,
      ...(withUsage ? { usage } : {}),
    });
    const produce = async (send: (event: ChatChunk) => void): Promise<void> => {
      for (let index = 0; index < common.choices; index++) {
        const delta = { role: "assistant" as const, content: "" };
        send(chunk([{ index, delta, logprobs: null, finish_reason: null }]));
      }
      try {
        for await (const { choice: index, text, tokens, finish } of deltas) {
          if (text !== "" || logprobs !== null)
            send(
              chunk([{ index, delta: { content: text }, logprobs: reported(tokens), finish_reason: null }]),
            );
          if (finish) send(chunk([{ index, delta: {}, logprobs: null, finish_reason: finish }]));
        }
      } finally {
        note();
      }
      if (withUsage) send(chunk([], usageOf(counts)));
    };
    return eventStream(c, serving, produce, () => generation!.cancel());
  }

  keepOpen(c);
  c.req.raw.signal.addEventListener("abort", () => generation!.cancel());
  const choices = Array.from({ length: common.choices }, () => ({
    text: "",
    tokens: [] as ScoredToken[],
    finish: null as "stop" | "length" | null,
  }));
  try {
    for await (const { choice, text, tokens, finish } of deltas) {
      const own = choices[choice]!;
      own.text += text;
      own.tokens.push(...tokens);
      own.finish = finish;
    }
  } finally {
    note();
  }
  const answer: ChatResponse = {
    ...head,
    object: "chat.completion",
    choices: choices.map(({ text, tokens, finish }, index) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: reported(tokens),
      finish_reason: finish,
    })),
    usage: usageOf(counts),
  };
  return c.json(answer);
}
