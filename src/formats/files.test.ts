import { describe, expect, test } from "bun:test";
import { closeSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { readExactly, readJsonObject, replaceFile, withFile, writeFully, writeTextFile } from "./files.ts";
import { findDuplicateKey } from "./json.ts";
import { inputErrorOf, withFiles } from "./testing.ts";

describe("replaceFile", () => {
  test("an opened older file keeps its contents", () =>
    withFiles({ x: "old" }, (dir) => {
      const path = join(dir, "x");
      withFile(path, (fd, bytes) => {
        writeTextFile(path, "new and longer");
        const target = new Uint8Array(bytes);
        readExactly(fd, target, 0, path);
        expect(new TextDecoder().decode(target)).toBe("old");
      });
      expect(readFileSync(path, "utf8")).toBe("new and longer");
    }));

  test("whatever is thrown, the older file stays and nothing lies beside it", () =>
    withFiles({ x: "old" }, (dir) => {
      const path = join(dir, "x");
      const failing = (): void =>
        replaceFile(path, (fd) => {
          writeFully(fd, Uint8Array.of(1));
          throw new Error("mine");
        });
      expect(failing).toThrow("mine");
      expect(readdirSync(dir)).toEqual(["x"]);
      expect(readFileSync(path, "utf8")).toBe("old");
    }));

  test("a full disk becomes advice", () =>
    withFiles({}, (dir) => {
      const full = Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
      const failing = (): void =>
        replaceFile(join(dir, "x"), () => {
          throw full;
        });
      expect(inputErrorOf(failing)).toMatch(
        /x: cannot be written \(ENOSPC.*The disk is full: free some space/,
      );
      expect(readdirSync(dir)).toEqual([]);
    }));

  test("a descriptor that cannot be closed hides no error and leaves nothing", () =>
    withFiles({}, (dir) => {
      expect(inputErrorOf(() => replaceFile(join(dir, "x"), closeSync))).toMatch(
        /x: cannot be written \(EBADF/,
      );
      expect(readdirSync(dir)).toEqual([]);
    }));

  test("a folder that is a file", () =>
    withFiles({ x: "old" }, (dir) => {
      expect(inputErrorOf(() => writeTextFile(join(dir, "x", "y"), ""))).toMatch(
        /is not a folder|does not exist/,
      );
    }));
});

describe("reading", () => {
  test("beyond the end", () =>
    withFiles({ x: "abc" }, (dir) => {
      const path = join(dir, "x");
      const beyond = (): void => withFile(path, (fd) => readExactly(fd, new Uint8Array(4), 1, path));
      expect(inputErrorOf(beyond)).toMatch(/x: the file ends at byte 3, expected 4 bytes at 1/);
    }));

  test.each([
    ["[1]", /expected a JSON object at the top level/],
    ["{", /not valid JSON/],
    ['{"a": {"b": 1, "b": 2}}', /the key "b" stands twice/],
  ])("%j is refused", (text, message) => {
    withFiles({ "x.json": text }, (dir) => {
      expect(inputErrorOf(() => readJsonObject(join(dir, "x.json")))).toMatch(message);
    });
  });

  test("our own errors pass through", () =>
    withFiles({ x: "" }, (dir) => {
      writeFileSync(join(dir, "x"), "{}");
      expect(readJsonObject(join(dir, "x"))).toEqual({});
      expect(() => readJsonObject(join(dir, "y"))).toThrow(InputError);
    }));
});

test.each([
  ['{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}', null],
  ['{"a":"\\"a\\":1, {","b":"a"}', null],
  ['{"a":1,"\\u0061":2}', "a"],
  ['{"b":{"x":1,"y":2,"x":3}}', "x"],
  ['{"a" : 1, "a"\n: 2}', "a"],
  ['{"\\\\":1,"\\\\":2}', "\\"],
  ['["a","a"]', null],
  ['{"a":"b\\\\","a":1}', "a"],
  ['{"__proto__":1,"__proto__":2}', "__proto__"],
])("findDuplicateKey(%j)", (text, expected) => {
  JSON.parse(text);
  expect(findDuplicateKey(text)).toBe(expected);
});

test("findDuplicateKey looks behind strings of megabytes", () => {
  for (const long of ["x".repeat(6 << 20), "\\n".repeat(3 << 20)])
    expect(findDuplicateKey(`{"a":"${long}","b":1,"b":2}`)).toBe("b");
});
