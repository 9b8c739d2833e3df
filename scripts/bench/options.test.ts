import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../../src/errors.ts";
import { benchmarkNames, benchOptions, peerFlags, stepMethods } from "./options.ts";

const folder = mkdtempSync(join(tmpdir(), "sbora-options-"));
writeFileSync(join(folder, "libllama.v0.5.0.so"), "");
afterAll(() => rmSync(folder, { recursive: true }));

const options = (what?: string, args: Record<string, unknown> = {}, peers: string[] = []) =>
  benchOptions(what, args, peers);
const refused = (...of: Parameters<typeof options>): string => {
  try {
    options(...of);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error("not refused");
};

describe("what is measured", () => {
  test("one, all, or the profile", () => {
    expect(options("step").benchmarks).toEqual(["step"]);
    expect(options("all").benchmarks).toEqual(benchmarkNames);
    expect(options("profile")).toMatchObject({ benchmarks: [], profile: true });
  });

  test("nothing and something else are refused with the list", () => {
    expect(refused()).toContain(
      "expected one of gemm, step, memory, decode, nf4, evaluate, start, swap, serve, all, profile",
    );
    expect(refused("gem")).toContain('"gem" is no benchmark');
  });

  test("defaults", () => {
    expect(options("gemm")).toMatchObject({
      python: null,
      llama: null,
      llamaServer: null,
      model: null,
      shape: null,
      quick: false,
      json: false,
      computes: null,
      methods: stepMethods,
      forms: null,
      rounds: null,
      threads: null,
    });
  });
});

describe("flags", () => {
  test("are read", () => {
    const args = { shape: "llama-7b", compute: "bf16", methods: "lora,dora", forms: "tuned", rounds: "3" };
    expect(options("step", { ...args, quick: true, json: true, threads: "2" })).toMatchObject({
      shape: "llama-7b",
      computes: ["bf16"],
      methods: ["lora", "dora"],
      forms: ["tuned"],
      rounds: 3,
      threads: 2,
      quick: true,
      json: true,
    });
  });

  test("what they do not know is refused by name", () => {
    expect(refused("step", { shape: "llama-9b" })).toContain('--shape is "llama-9b"');
    expect(refused("step", { methods: "lora,oa" })).toContain('--methods names "oa"');
    expect(refused("step", { forms: "fast" })).toContain('--forms names "fast"');
    expect(refused("step", { rounds: "0" })).toContain('--rounds is "0"');
    expect(refused("step", { model: folder })).toContain("config.json");
  });

  test("a model and a shape exclude one another", () => {
    writeFileSync(join(folder, "config.json"), "{}");
    expect(options("step", { model: folder }).model).toBe(folder);
    expect(refused("step", { model: folder, shape: "smollm2" })).toContain("give one of them");
  });
});

describe("peers", () => {
  test("may stand twice, in both spellings", () => {
    const argv = ["bun", "bench.ts", "all", "--peer", "python:/a", "--json", "--peer=llama:/b"];
    expect(peerFlags(argv)).toEqual(["python:/a", "llama:/b"]);
    expect(peerFlags(["bun", "bench.ts", "--peer"])).toEqual([""]);
  });

  test("are found", () => {
    const peers = [`python:${process.execPath}`, `llama:${folder}`, `llama-server:${process.execPath}`];
    expect(options("all", {}, peers)).toMatchObject({
      python: process.execPath,
      llama: folder,
      llamaServer: process.execPath,
    });
  });

  test("a kind that is unknown, a path that is not there, a folder without the library", () => {
    expect(refused("all", {}, ["torch:/x"])).toContain('--peer is "torch:/x"');
    expect(refused("all", {}, [""])).toContain("python:PATH");
    expect(refused("all", {}, ["python:/no/such/python"])).toContain("there is no /no/such/python");
    expect(refused("all", {}, [`llama:${tmpdir()}`])).toContain("there is no libllama.so");
    expect(refused("all", {}, [`llama:${process.execPath}`])).toContain("there is no libllama.so");
    expect(refused("all", {}, [`llama-server:${folder}`])).toContain("is no file");
  });
});
