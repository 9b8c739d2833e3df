/** The page's script: a conversation with one of the models, streamed. Runs in the browser. */
import { eventsIn } from "./events.ts";

interface Message {
  readonly role: "user" | "assistant";
  readonly content: string;
}

interface Chunk {
  readonly choices?: readonly { readonly delta: { readonly content?: string } }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const model = find<HTMLSelectElement>("model");
const prompt = find<HTMLTextAreaElement>("prompt");
const key = find<HTMLInputElement>("key");
const list = find("messages");
const status = find("status");
const send = find<HTMLButtonElement>("send");
const stop = find<HTMLButtonElement>("stop");

let conversation: Message[] = [];
let running: AbortController | null = null;

function headers(): Record<string, string> {
  return key.value === "" ? {} : { Authorization: `Bearer ${key.value}` };
}

async function loadModels(): Promise<void> {
  const response = await fetch("/v1/models", { headers: headers() });
  find("key-field").hidden = response.status !== 401 && key.value === "";
  if (!response.ok) {
    status.textContent = await problemOf(response);
    return;
  }
  const { data } = (await response.json()) as { data: { id: string; parent: string | null }[] };
  model.replaceChildren(
    ...data.map(({ id, parent }) => new Option(parent === null ? id : `${id} (adapter)`, id)),
  );
  status.textContent = "";
}

async function problemOf(response: Response): Promise<string> {
  const body = (await response.json().catch(() => ({}))) as Chunk;
  return body.error?.message ?? `The server answered ${response.status}.`;
}

function show(kind: string, text: string): HTMLElement {
  const element = document.createElement("div");
  element.className = `message ${kind}`;
  element.textContent = text;
  list.append(element);
  element.scrollIntoView({ block: "end" });
  return element;
}

async function ask(text: string): Promise<void> {
  conversation.push({ role: "user", content: text });
  show("user", text);
  const element = show("assistant", "");
  running = new AbortController();
  send.hidden = true;
  stop.hidden = false;
  const start = performance.now();
  let first = 0;
  let answer = "";
  let tokens = 0;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { ...headers(), "Content-Type": "application/json" },
      signal: running.signal,
      body: JSON.stringify({
        model: model.value,
        messages: conversation,
        temperature: find<HTMLInputElement>("temperature").valueAsNumber,
        max_tokens: find<HTMLInputElement>("max-tokens").valueAsNumber,
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    if (!response.ok || !response.body) throw new Error(await problemOf(response));
    for await (const chunk of eventsIn<Chunk>(response.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const piece = chunk.choices?.[0]?.delta.content ?? "";
      if (piece !== "" && first === 0) first = performance.now();
      answer += piece;
      element.textContent = answer;
      tokens = chunk.usage?.completion_tokens ?? tokens;
      element.scrollIntoView({ block: "end" });
    }
    tell(tokens, start, first);
  } catch (error) {
    const stopped = running.signal.aborted;
    if (stopped) status.textContent = "Stopped.";
    else show("error", error instanceof Error ? error.message : String(error));
    if (answer === "") element.remove();
  } finally {
    conversation.push({ role: "assistant", content: answer });
    running = null;
    send.hidden = false;
    stop.hidden = true;
  }
}

function tell(tokens: number, start: number, first: number): void {
  const end = performance.now();
  const speed = first > 0 && tokens > 1 ? ((tokens - 1) / (end - first)) * 1000 : 0;
  const wait = first > 0 ? Math.round(first - start) : 0;
  status.textContent = `${tokens} tokens, ${speed.toFixed(1)} tokens/s, first one after ${wait} ms`;
}

find<HTMLFormElement>("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (text === "" || running) return;
  prompt.value = "";
  void ask(text);
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find<HTMLFormElement>("form").requestSubmit();
});
stop.addEventListener("click", () => running?.abort());
find("clear").addEventListener("click", () => {
  running?.abort();
  conversation = [];
  list.replaceChildren();
  status.textContent = "";
});
key.addEventListener("change", () => void loadModels());
void loadModels();
