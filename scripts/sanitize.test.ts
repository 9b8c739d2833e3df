/** What the command refuses. That it finds mistakes it proves to itself in every run (sanitize/planted.ts). */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runScript } from "./testing.ts";

const root = mkdtempSync(join(tmpdir(), "sbora-sanitize-test-"));
afterAll(() => rmSync(root, { recursive: true }));

function refused(args: readonly string[], env: Record<string, string> = {}): string {
  const { code, stdout, stderr } = runScript("sanitize", args, { SBORA_CACHE: join(root, "cache"), ...env });
  expect([code, stdout]).toEqual([1, ""]);
  return stderr.trim();
}

test("kinds and flags that do not exist", () => {
  expect(refused(["--kind", "memory"])).toBe('--kind is "memory"; expected one of address, thread.');
  expect(refused(["--test", "a.test.ts"])).toContain("unknown flag --test; did you mean --tests?");
}, 30_000);

test("a compiler without the sanitizer's runtime, before anything is compiled", () => {
  const compiler = join(root, "c++");
  // As clang and GCC do: a file they do not have is printed as it was asked for.
  writeFileSync(
    compiler,
    '#!/bin/sh\ncase $1 in --version) echo fake 1;; *) echo "$1" | cut -d= -f2;; esac\n',
    {
      mode: 0o755,
    },
  );
  expect(refused(["--kind", "thread"], { CXX: compiler })).toMatch(
    /^\S+c\+\+ \(fake 1\) has no libtsan\.so\. It comes with g\+\+ on Linux: apt install g\+\+ .*CXX=g\+\+/,
  );
}, 30_000);
