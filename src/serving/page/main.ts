/** The page's script: a conversation with one of the models, streamed. Runs in the browser. */
import { eventsIn } from "./events.ts";

interface Message {
  readonly role: "user" | "assistant";
  readonly content: string;
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string }; readonly text?: string }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string; readonly code: string };
}

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const model = find<HTMLSelectElement>("model");
const prompt = find<HTMLTextAreaElement>("prompt");
const key = find<HTMLInputElement>("key");
const settings = find<HTMLFormElement>("settings");
const list = find("messages");
const empty = find("empty");
const status = find("status");
const send = find<HTMLButtonElement>("send");
const stop = find<HTMLButtonElement>("stop");

let conversation: Message[] = [];
let running: AbortController | null = null;
/** The model has no chat template: what is typed is continued as it stands. */
let plain = false;

function headers(): Record<string, string> {
  return key.value === "" ? {} : { Authorization: `Bearer ${key.value}` };
}

function showSettings(open: boolean): void {
  settings.hidden = !open;
  find("open").setAttribute("aria-expanded", String(open));
}

async function loadModels(): Promise<void> {
  send.disabled = true;
  const response = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  if (!response) {
    status.textContent = "The server does not answer.";
    return;
  }
  if (!response.ok) {
    status.textContent = (await problemOf(response)).message;
    if (response.status === 401) showSettings(true);
    // The model is still loading.
    if (response.status === 503) setTimeout(() => void loadModels(), 1000);
    return;
  }
  const { data } = (await response.json()) as { data: { id: string; parent: string | null }[] };
  const known = [...model.options].map(({ value }) => value);
  if (known.join("\n") !== data.map(({ id }) => id).join("\n")) {
    const chosen = model.value;
    const options = data.map(({ id, parent }) => new Option(parent === null ? id : `${id} (adapter)`, id));
    model.replaceChildren(...options);
    if (data.some(({ id }) => id === chosen)) model.value = chosen;
  }
  status.textContent = "";
  send.disabled = false;
}

async function problemOf(response: Response): Promise<{ message: string; code: string }> {
  const body = (await response.json().catch(() => ({}))) as Chunk;
  return body.error ?? { message: `The server answered ${response.status}.`, code: "" };
}

function show(kind: string, text: string): HTMLElement {
  const element = document.createElement("div");
  element.className = kind;
  element.textContent = text;
  empty.hidden = true;
  list.append(element);
  return element;
}

/** Runs a change of the messages and keeps the end in sight, unless the reader has scrolled away from it. */
function following(change: () => void): void {
  const view = list.parentElement!;
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 60;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

async function request(signal: AbortSignal): Promise<Response> {
  const said = plain ? { prompt: conversation.at(-1)!.content } : { messages: conversation };
  const response = await fetch(plain ? "/v1/completions" : "/v1/chat/completions", {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    signal,
    body: JSON.stringify({
      model: model.value,
      ...said,
      temperature: find<HTMLInputElement>("temperature").valueAsNumber,
      max_tokens: find<HTMLInputElement>("max-tokens").valueAsNumber,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (response.ok && response.body) return response;
  const { message, code } = await problemOf(response);
  if (code !== "no_chat_template" || plain) throw new Error(message);
  plain = true;
  status.textContent = "This model has no chat template: it continues what you type.";
  return request(signal);
}

async function ask(text: string): Promise<void> {
  const own = conversation;
  own.push({ role: "user", content: text });
  status.textContent = "";
  const question = show("message user", text);
  const element = show("message assistant running", "");
  list.parentElement!.scrollTop = list.parentElement!.scrollHeight;
  running = new AbortController();
  send.hidden = true;
  stop.hidden = false;
  const start = performance.now();
  let first = 0;
  let answer = "";
  let tokens = 0;
  try {
    const response = await request(running.signal);
    for await (const chunk of eventsIn<Chunk>(response.body!)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const [choice] = chunk.choices ?? [];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      if (piece !== "" && first === 0) first = performance.now();
      answer += piece;
      tokens = chunk.usage?.completion_tokens ?? tokens;
      following(() => {
        element.textContent = answer;
      });
    }
    following(() => show("facts", factsOf(tokens, start, first)));
  } catch (error) {
    if (own !== conversation) {
      // It was cleared meanwhile.
    } else if (running.signal.aborted) following(() => show("facts", `${model.value} · stopped`));
    else following(() => show("message error", error instanceof Error ? error.message : String(error)));
    if (answer === "") element.remove();
  } finally {
    element.classList.remove("running");
    if (answer !== "") own.push({ role: "assistant", content: answer });
    else {
      // A message without an answer is none of the conversation; it may be sent again.
      own.pop();
      question.style.opacity = "0.5";
      if (own === conversation && prompt.value === "") prompt.value = text;
    }
    running = null;
    send.hidden = false;
    stop.hidden = true;
  }
}

function factsOf(tokens: number, start: number, first: number): string {
  const end = performance.now();
  const speed = first > 0 && tokens > 1 ? ((tokens - 1) / (end - first)) * 1000 : 0;
  const facts = [model.value, `${tokens} ${tokens === 1 ? "token" : "tokens"}`];
  if (speed > 0) facts.push(`${speed.toFixed(1)} tokens/s`);
  if (first > 0) facts.push(`first after ${Math.round(first - start)} ms`);
  return facts.join(" · ");
}

find<HTMLFormElement>("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (text === "" || running || send.disabled) return;
  prompt.value = "";
  void ask(text);
});
prompt.addEventListener("keydown", (event) => {
  // Enter sends, Shift+Enter breaks the line.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find<HTMLFormElement>("form").requestSubmit();
});
stop.addEventListener("click", () => running?.abort());
find("clear").addEventListener("click", () => {
  running?.abort();
  conversation = [];
  list.replaceChildren(empty);
  empty.hidden = false;
  status.textContent = "";
  prompt.focus();
});
find("open").addEventListener("click", () => showSettings(settings.hidden === true));
settings.addEventListener("submit", (event) => event.preventDefault());
// Adapters come and go while the page is open.
model.addEventListener("focus", () => void loadModels());
model.addEventListener("change", () => {
  plain = false;
});
key.addEventListener("change", () => void loadModels());
prompt.focus();
void loadModels();
