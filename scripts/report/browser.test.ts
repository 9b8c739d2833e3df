/** The page of all results in a real browser: headless Chromium, where there is one on the PATH. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { keepLosses } from "../../experiments/cell-file.ts";
import { type Browser, findBrowser, openBrowser, type Page } from "../../src/serving/testing-browser.ts";
import { runScript } from "../testing.ts";
import { testCell, testCurve, testMmluCell, testPage } from "./testing.ts";

setDefaultTimeout(120_000);

const found = findBrowser();
const WIDE = { width: 1280, height: 900 };
const PHONE = { width: 375, height: 740 };

/**
 * The least contrast (WCAG 2) of any text to what lies behind it, and that text. Behind a picture's text is the picture's
 * own page. Text in closed folds counts: they are opened first.
 */
const LEAST_CONTRAST = `(() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const page = element.closest("svg")?.querySelector(".page");
    if (page) return getComputedStyle(page).fill;
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (parts(backgroundColor)[3] !== 0) return backgroundColor;
    }
    return "rgb(255,255,255)";
  };
  let least = { ratio: Infinity, text: "" };
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
    if (!own || element.tagName === "title" || element.closest(".unseen")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least.ratio) least = { ratio, text: element.textContent.slice(0, 60) };
  }
  return least;
})()`;

describe.skipIf(found === null)("the page in Chromium", () => {
  const dir = mkdtempSync(join(tmpdir(), "sbora-report-page-"));
  const root = join(dir, "results");
  let browser: Browser;
  let page: Page;
  const wrong: string[] = [];

  beforeAll(async () => {
    const answers = [true, true, false, true];
    testCell(root, "base", [false, false, false, false]);
    for (const method of ["lora", "dora", "oa", "lora-fa", "sbora-fa", "sbora-fb"] as const) {
      for (const seed of [42, 43]) keepLosses(testCell(root, method, answers, { seed }));
    }
    testCell(root, "lora", answers, {
      preset: "tiny",
      rank: 8,
      processor: "<script>document.title='taken'</script>",
    });
    for (const method of ["lora", "dora", "sbora-fa"] as const) testCurve(root, method, 100);
    for (const method of ["base", "lora", "sbora-fa"] as const) testMmluCell(root, method, answers);
    testPage(root, "figure2", "tiny");
    expect(runScript("report", ["--results", root]).stderr).toBe("");
    browser = await openBrowser(found!);
    page = await browser.newPage({ viewport: WIDE });
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") wrong.push(message.text());
    });
    page.on("pageerror", (error) => wrong.push(String(error)));
    const url = pathToFileURL(join(root, "index.html")).href;
    page.on("request", (request) => {
      if (request.url() !== url && !request.url().startsWith("data:")) wrong.push(request.url());
    });
    await page.goto(url);
  });
  afterAll(async () => {
    await browser?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const shot = async (name: string): Promise<void> => {
    const shots = process.env.SBORA_SCREENSHOTS;
    if (!shots) return;
    mkdirSync(shots, { recursive: true });
    await page.screenshot({ path: join(shots, `${name}.png`) });
  };

  test("tables with captions, pictures with titles, every link to its chapter; nothing runs", async () => {
    const count = (selector: string): Promise<number> => page.locator(selector).count();
    expect(await count("table")).toBeGreaterThan(15);
    expect(await count("table:not(:has(> caption))")).toBe(0);
    expect(await count("main svg")).toBeGreaterThan(8);
    expect(await count("main svg:not(:has(> title))")).toBe(0);
    expect(await count("img:not([alt])")).toBe(0);
    expect(await count("h1")).toBe(1);
    const lost =
      "[...document.querySelectorAll('nav a')].filter((a) => !document.querySelector(a.hash)).length";
    expect(await page.evaluate<number>(lost)).toBe(0);
    expect(await page.evaluate<string>("document.title")).toBe("SBoRA: what was measured here");
    // bars are drawn where their scale is: not outside of the picture
    const outside = `[...document.querySelectorAll("main svg rect, main svg text, main svg circle")].filter((mark) => {
      const [own, all] = [mark.getBoundingClientRect(), mark.ownerSVGElement.getBoundingClientRect()];
      return own.width > 0 && (own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1);
    }).map((mark) => mark.outerHTML)`;
    expect(await page.evaluate<string[]>(outside)).toEqual([]);
  });

  for (const scheme of ["light", "dark"] as const) {
    test(`every text is readable in a ${scheme} window`, async () => {
      await page.emulateMedia({ colorScheme: scheme });
      const least = await page.evaluate<{ ratio: number; text: string }>(LEAST_CONTRAST);
      expect(least.ratio, least.text).toBeGreaterThan(4.5);
      const back = "Number(/\\d+/.exec(getComputedStyle(document.body).backgroundColor)[0])";
      if (scheme === "dark") expect(await page.evaluate<number>(back)).toBeLessThan(60);
      else expect(await page.evaluate<number>(back)).toBeGreaterThan(200);
      await shot(scheme);
    });
  }

  test("a phone's window is not wider than the phone, and pictures' words are not small in it", async () => {
    await page.setViewportSize(PHONE);
    expect(await page.evaluate<number>("document.documentElement.scrollWidth")).toBe(PHONE.width);
    const smallest = `Math.min(...[...document.querySelectorAll("main svg")].map((svg) =>
      13 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width).filter((size) => size > 0))`;
    expect(await page.evaluate<number>(smallest)).toBeGreaterThan(8.5);
    await shot("phone");
  });

  test("no error, no warning, no request", () => {
    expect(wrong).toEqual([]);
  });
});
