import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ffiTable } from "./symbols.ts";

/** C parameter -> bun:ffi type. `const char *` is a string going in; every other pointer is an address. */
function ffiType(parameter: string): string {
  if (/^const char \*/.test(parameter)) return "cstring";
  if (parameter.includes("*")) return "ptr";
  const type = parameter.split(" ")[0] ?? "";
  return { int32_t: "i32", int64_t: "i64", uint64_t: "u64", double: "f64" }[type] ?? `unknown: ${parameter}`;
}

test("the FFI table agrees with every prototype of sbora.h", () => {
  const path = join(import.meta.dir, "../../kernels/sbora.h");
  const header = readFileSync(path, "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const parsed: Record<string, { args: string[]; returns: string }> = {};
  for (const match of header.matchAll(/SB_API\s+([\w\s*]+?)(sb_\w+)\(([^)]*)\)\s*SB_NOEXCEPT;/g)) {
    const parameters = (match[3] ?? "").split(",").map((text) => text.replace(/\s+/g, " ").trim());
    parsed[match[2] ?? ""] = {
      args: parameters.filter((text) => text !== "void").map(ffiType),
      returns: ffiType((match[1] ?? "").trim()),
    };
  }
  expect(Object.keys(parsed).length).toBe(header.match(/SB_API (int32_t|const)/g)?.length ?? 0);
  expect(ffiTable() as typeof parsed).toEqual(parsed);
});
