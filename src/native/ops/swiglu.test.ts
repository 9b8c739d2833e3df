import { describe, expect, test } from "bun:test";
import { readF64 } from "../tensor.ts";
import { swigluBackward, swigluForward } from "./swiglu.ts";
import { agree, type Bench, close, coarse, lab, numbers, on, run, stream } from "./testing.ts";
import { BF16_STEP, relativeTo, sumOf } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

const SIZES = [0, 1, 17, 1000, 70_003];
const silu = (x: number) => x / (1 + Math.exp(-x));

/** Some gates far out, where exp overflows or vanishes. */
const gates = (seed: number, n: number) =>
  numbers(stream(seed), n, 8).map((value, i) => (i % 7 === 3 ? value * 32 : value));

describe("swiglu", () => {
  test("computes its formula, also far out", () => {
    const [gate, up] = [Float64Array.from([-1000, -100, -1, 0, 1, 100, 1000]), numbers(stream(1), 7)];
    const { h } = run(lab.double, (bench) => {
      const h = bench.out("f32", [7]);
      swigluForward(bench.device, bench.f32([7], gate), bench.f32([7], up), h);
      return { h };
    });
    close(
      "formula",
      h!,
      gate.map((value, i) => silu(value) * up[i]!),
      1e-12,
    );
  });

  for (const type of ["f32", "bf16"] as const) {
    test(`agrees with the reference, in place and not: ${type}`, () => {
      for (const n of SIZES) {
        const [gate, up, dh] = [gates(n, n), numbers(stream(n + 1), n), numbers(stream(n + 2), n)];
        const body = (bench: Bench) => {
          const [g, u] = [bench.real(type, [n], gate), bench.real(type, [n], up)];
          const [h, dgate, dup] = [bench.out(type, [n]), bench.out("f32", [n]), bench.out("f32", [n])];
          swigluForward(bench.device, g, u, h);
          swigluBackward(bench.device, g, u, bench.f32([n], dh), dgate, dup);
          const [hOverGate, hOverUp] = [bench.real(type, [n], gate), bench.real(type, [n], up)];
          swigluForward(bench.device, hOverGate, u, hOverGate);
          swigluForward(bench.device, g, hOverUp, hOverUp);
          const [over1, over2, rest] = [bench.f32([n], dh), bench.f32([n], dh), bench.out("f32", [n])];
          swigluBackward(bench.device, g, u, over1, over1, rest);
          swigluBackward(bench.device, g, u, over2, rest, over2);
          return { h, dgate, dup, hOverGate, hOverUp, over1, over2 };
        };
        const expected = run(lab.reference, body);
        // The sigmoid's relative error is a few roundings of exp, whose argument is up to 256: 256·6e-8 at worst where
        // the result is tiny, so relative to the result plus what underflows.
        const near = (name: string) => relativeTo(expected[name]!, 2e-5, 1e-7);
        const rounded = (name: string) =>
          type === "bf16" ? sumOf(near(name), relativeTo(expected[name]!, BF16_STEP)) : near(name);
        agree(`swiglu ${n}`, body, {
          h: rounded("h"),
          hOverGate: rounded("hOverGate"),
          hOverUp: rounded("hOverUp"),
          dgate: near("dgate"),
          dup: near("dup"),
          over1: near("over1"),
          over2: near("over2"),
        });
        for (const [alias, plain] of [
          ["hOverGate", "h"],
          ["hOverUp", "h"],
          ["over1", "dgate"],
          ["over2", "dup"],
        ]) {
          close(`${alias} in place`, expected[alias!]!, expected[plain!]!, 0);
        }
      }
    });
  }

  test("backward is the derivative of forward", () => {
    const n = 9;
    const next = stream(5);
    const c = coarse(next, n);
    checkGradients({
      label: "swiglu",
      inputs: {
        gate: { shape: [n], values: coarse(next, n).map((value) => 4 * value) },
        up: { shape: [n], values: coarse(next, n) },
      },
      loss: (bench, { gate, up }) => {
        const h = bench.out("f32", [n]);
        swigluForward(bench.device, gate!, up!, h);
        return weighted(readF64(bench.device, h), c);
      },
      gradients: (bench, { gate, up }) => {
        const [dgate, dup] = [bench.out("f32", [n]), bench.out("f32", [n])];
        swigluBackward(bench.device, gate!, up!, bench.f32([n], c), dgate, dup);
        return { gate: dgate, up: dup };
      },
    });
  });

  test("refuses wrong shapes and mixed types", () => {
    on(lab.reference, (bench) => {
      const { device, zeros } = bench;
      expect(() => swigluForward(device, zeros([2, 3]), zeros([2, 4]), zeros([2, 3]))).toThrow(
        /up is f32 \[2,4\]; expected f32 or bf16 \[6\]/,
      );
      const up = bench.bf16([2, 3], new Float64Array(6));
      expect(() => swigluForward(device, zeros([2, 3]), up, zeros([2, 3]))).toThrow(
        /up is bf16 \[2,3\]; expected f32/,
      );
    });
  });
});
