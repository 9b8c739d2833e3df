/**
 * For tests: Debian's Chromium, driven by playwright-core. The package takes 14 MB, so it is no dependency: it is put
 * into the cache folder once, at a version and a hash that are fixed here, and only where there is a Chromium.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../native/build.ts";

const VERSION = "1.65.1";
const HASH =
  "sha512-hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw==";
const NAMES = ["chromium", "chromium-browser", "google-chrome"];

/** What the tests need of playwright's types, which are not installed where types are checked. */
export interface Locator {
  click(): Promise<void>;
  fill(text: string): Promise<void>;
  press(key: string): Promise<void>;
  selectOption(value: string): Promise<unknown>;
  waitFor(options: { state: "visible" | "hidden"; timeout?: number }): Promise<void>;
  textContent(): Promise<string | null>;
  inputValue(): Promise<string>;
  count(): Promise<number>;
  locator(selector: string): Locator;
  last(): Locator;
}
export interface Page {
  goto(url: string): Promise<unknown>;
  locator(selector: string): Locator;
  evaluate<T>(script: string): Promise<T>;
  addInitScript(script: string): Promise<void>;
  setViewportSize(size: { width: number; height: number }): Promise<void>;
  emulateMedia(media: { colorScheme: "light" | "dark" }): Promise<void>;
  screenshot(options: { path: string }): Promise<unknown>;
  on(event: "console", listener: (message: { type(): string; text(): string }) => void): void;
  on(event: "pageerror", listener: (error: unknown) => void): void;
  on(event: "request", listener: (request: { url(): string; postData(): string | null }) => void): void;
  close(): Promise<void>;
}
export interface Browser {
  newPage(options: { viewport: { width: number; height: number } }): Promise<Page>;
  close(): Promise<void>;
}
interface Playwright {
  readonly chromium: {
    launch(options: { executablePath: string; args: readonly string[] }): Promise<Browser>;
  };
}

/** Where Chromium and the package are; null without a Chromium on the PATH, or a registry to get the package from. */
export function findBrowser(): { readonly executable: string; readonly packagePath: string } | null {
  const executable = NAMES.map((name) => Bun.which(name)).find((path) => path !== null);
  if (!executable) return null;
  const packagePath = installed();
  return packagePath === null ? null : { executable, packagePath };
}

export async function openBrowser(found: NonNullable<ReturnType<typeof findBrowser>>): Promise<Browser> {
  const { chromium } = (await import(found.packagePath)) as Playwright;
  // Root in a container has no namespaces for its sandbox; the only page it sees is ours.
  return chromium.launch({ executablePath: found.executable, args: ["--no-sandbox"] });
}

function installed(): string | null {
  const dir = join(cacheFolder(), `playwright-core-${VERSION}`);
  const entry = join(dir, "node_modules", "playwright-core", "index.mjs");
  if (existsSync(entry)) return entry;
  mkdirSync(dir, { recursive: true });
  const dependencies = { "playwright-core": VERSION };
  const locked = [`playwright-core@${VERSION}`, "", { bin: { "playwright-core": "cli.js" } }, HASH];
  const lock = {
    lockfileVersion: 1,
    workspaces: { "": { name: "sbora-browser", dependencies } },
    packages: { "playwright-core": locked },
  };
  writeFileSync(
    join(dir, "package.json"),
    JSON.stringify({ name: "sbora-browser", private: true, dependencies }),
  );
  writeFileSync(join(dir, "bun.lock"), JSON.stringify(lock));
  const command = [process.execPath, "install", "--frozen-lockfile", "--ignore-scripts"];
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: dir, stdout: "ignore", timeout: 60_000 });
  if (exitCode === 0 && existsSync(entry)) return entry;
  console.error(`playwright-core ${VERSION} cannot be installed: ${stderr}`);
  return null;
}
