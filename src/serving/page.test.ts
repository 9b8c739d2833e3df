/** The page at / in a real browser: headless Chromium, where there is one on the PATH. */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { workerPort } from "./client.ts";
import { type RunningServer, startServer } from "./server.ts";
import { tinyOptions } from "./testing.ts";
import { type TinyFolders, testSettings, tinyFolders } from "./testing-app.ts";
import { type Browser, findBrowser, openBrowser, type Page } from "./testing-browser.ts";

setDefaultTimeout(120_000);

const found = findBrowser();
const WIDE = { width: 1100, height: 760 };
/** Counts how many different texts the last answer has had: a stream shows more than one. */
const WATCH = `
  globalThis.seen = new Set();
  new MutationObserver(() => {
    const answer = [...document.querySelectorAll(".assistant")].at(-1);
    if (answer) globalThis.seen.add(answer.textContent.length);
  }).observe(document, { subtree: true, childList: true, characterData: true });`;

describe.skipIf(found === null)("the page in Chromium", () => {
  let folders: TinyFolders;
  let browser: Browser;
  const servers: RunningServer[] = [];
  let wrong: string[] = [];
  let bodies: { model: string; messages?: { role: string }[]; prompt?: string }[] = [];

  beforeAll(async () => {
    folders = await tinyFolders();
    browser = await openBrowser(found!);
  });
  afterEach(() => {
    wrong = [];
    bodies = [];
  });
  afterAll(async () => {
    await browser.close();
    for (const server of servers) await server.drain();
    folders.remove();
  });

  async function start(settings: Partial<typeof testSettings> = {}): Promise<RunningServer> {
    const engine = { ...tinyOptions, model: folders.model };
    const own = {
      adapters: folders.adapters,
      name: null,
      host: "127.0.0.1",
      port: 0,
      queue: 8,
      drainMs: 100,
    };
    const server = startServer(
      { ...own, engine, settings: { ...testSettings, ...settings }, log: () => {} },
      workerPort(),
    );
    servers.push(server);
    await server.ready;
    return server;
  }

  async function open(url: string): Promise<Page> {
    const page = await browser.newPage({ viewport: WIDE });
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") wrong.push(message.text());
    });
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrong.push(request.url());
      const body = request.postData();
      if (body) bodies.push(JSON.parse(body) as (typeof bodies)[number]);
    });
    await page.addInitScript(WATCH);
    await page.goto(url);
    return page;
  }

  async function say(page: Page, text: string): Promise<void> {
    const facts = await page.locator(".facts, .error").count();
    await page.locator("#prompt").fill(text);
    await page.locator("#prompt").press("Enter");
    for (let i = 0; i < 600 && (await page.locator(".facts, .error").count()) === facts; i++)
      await Bun.sleep(50);
    await page.locator("#send").waitFor({ state: "visible" });
  }

  const lengths = (page: Page): Promise<number> => page.evaluate("globalThis.seen.size");

  test("answers in a stream, from base and adapter, and says how fast; no error anywhere", async () => {
    const page = await open((await start()).url);
    await page.locator("#settings").waitFor({ state: "hidden" });
    await page.locator("#send:enabled").waitFor({ state: "visible" });
    await page.locator("#open").click();
    await page.locator("#max-tokens").fill("60");
    await say(page, "Hello there");
    expect(await page.locator(".facts").last().textContent()).toMatch(
      /^tiny · \d+ tokens · [\d.]+ tokens\/s · first after \d+ ms$/,
    );
    const first = (await page.locator(".assistant").last().textContent())!;
    expect(first.length).toBeGreaterThan(0);
    expect(await lengths(page)).toBeGreaterThan(5);
    await page.locator("#model").selectOption("fa");
    await say(page, "And now?");
    expect(await page.locator(".facts").last().textContent()).toStartWith("fa · ");
    // the conversation went along
    expect(bodies.map(({ model, messages }) => [model, messages!.map(({ role }) => role).join()])).toEqual([
      ["tiny", "user"],
      ["fa", "user,assistant,user"],
    ]);
    expect(wrong).toEqual([]);
    await page.close();
  });

  test("fits a narrow window and a dark one", async () => {
    const page = await open((await start()).url);
    await say(page, "a word that is far too long to fit: ".concat("x".repeat(200)));
    await page.locator("#open").click();
    await page.setViewportSize({ width: 340, height: 620 });
    expect(await page.evaluate<number>("document.documentElement.scrollWidth")).toBe(340);
    const bottom = await page.evaluate<number>(
      "document.getElementById('send').getBoundingClientRect().bottom",
    );
    expect(bottom).toBeLessThan(620);
    const brightness = (): Promise<number> =>
      page.evaluate("Number(/\\d+/.exec(getComputedStyle(document.body).backgroundColor)[0])");
    await page.emulateMedia({ colorScheme: "light" });
    expect(await brightness()).toBeGreaterThan(200);
    await page.emulateMedia({ colorScheme: "dark" });
    expect(await brightness()).toBeLessThan(60);
    const shots = process.env.SBORA_SCREENSHOTS;
    if (shots) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: join(shots, "narrow.png") });
    }
    expect(wrong).toEqual([]);
    await page.close();
  });

  test("stops, forgets what got no answer, and begins anew", async () => {
    const server = await start();
    const page = await open(server.url);
    await page.locator("#open").click();
    await page.locator("#max-tokens").fill("100000");
    await say(page, "too much");
    expect(await page.locator(".error").last().textContent()).toContain("512 tokens");
    expect(await page.locator("#prompt").inputValue()).toBe("too much");
    await page.locator("#max-tokens").fill("450");
    await page.locator("#prompt").fill("long");
    // In one go: on a busy machine the whole answer is there before a second click arrives.
    await page.evaluate("document.querySelector('#send').click(); document.querySelector('#stop').click()");
    await page.locator("#send").waitFor({ state: "visible" });
    for (let i = 0; i < 200 && server.serving.engine.outstanding() > 0; i++) await Bun.sleep(10);
    expect(server.serving.engine.outstanding()).toBe(0);
    await page.locator("#clear").click();
    expect(await page.locator(".message").count()).toBe(0);
    await page.locator("#max-tokens").fill("5");
    await say(page, "again");
    expect(bodies.at(-1)!.messages).toHaveLength(1);
    // Chromium tells of the 400 itself
    expect(wrong.filter((text) => !text.includes("status of 400"))).toEqual([]);
    await page.close();
  });

  test("asks for a key where there is one", async () => {
    const page = await open((await start({ apiKeys: ["secret"] })).url);
    await page.locator("#key").waitFor({ state: "visible" });
    await page.locator("#key").fill("secret");
    await page.locator("#key").press("Tab");
    await page.locator("#send:enabled").waitFor({ state: "visible" });
    await say(page, "Hello");
    expect(await page.locator(".facts").count()).toBe(1);
    expect(wrong.filter((text) => !text.includes("status of 401"))).toEqual([]);
    await page.close();
  });

  test("continues plain text where the model has no chat template", async () => {
    rmSync(join(folders.model, "chat_template.jinja"));
    const page = await open((await start()).url);
    await say(page, "once upon");
    expect(await page.locator("#status").textContent()).toContain("no chat template");
    expect(bodies.at(-1)).toMatchObject({ model: "tiny", prompt: "once upon" });
    expect((await page.locator(".assistant").last().textContent())!.length).toBeGreaterThan(10);
    await page.close();
  });
});
