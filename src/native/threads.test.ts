/**
 * More threads than this machine has cores, on shapes that split unevenly: the bytes of one thread, every time. Short
 * jobs follow each other so closely that workers wake up late, in the middle of a later job. Under ThreadSanitizer
 * (scripts/sanitize.ts) this is what meets the pool.
 */
import { expect, test } from "bun:test";
import { closeDevice, openDevice, reserve } from "./device.ts";
import { attentionBackward, attentionForward } from "./ops/attention.ts";
import { axpby, sumSquares } from "./ops/elementwise.ts";
import { embeddingBackward } from "./ops/embedding.ts";
import { headLoss } from "./ops/head-loss.ts";
import { linearBackward, linearForward } from "./ops/linear.ts";
import { matmul } from "./ops/matmul.ts";
import {
  type Bench,
  integers,
  lab,
  numbers,
  type Outputs,
  runBytes,
  sameBytes,
  stream,
} from "./ops/testing.ts";

const COUNTS = [3, 8];
const PLAN = { tokens: 256, width: 1024, rank: 64, vocabulary: 1024 };

/** Prime widths, r = 1, odd T. */
function linear(compute: "f32" | "bf16") {
  const [T, width, out, r] = [131, 257, 193, 1];
  const next = stream(T);
  const [x, w, z, u, dy] = [T * width, out * width, T * r, out * r, T * out].map((n) => numbers(next, n));
  return (bench: Bench): Outputs => {
    const weight = bench.weight(out, width, w!, { dtype: compute, compute });
    const factor = bench.f32([out, r], u!);
    const [y, dx, dz] = [bench.out("f32", [T, out]), bench.out("f32", [T, width]), bench.out("f32", [T, r])];
    const tail = { z: bench.real(compute, [T, r], z!), u: factor, scale: 2 };
    linearForward(bench.device, weight, bench.real(compute, [T, width], x!), y, { tail });
    const gradient = bench.real(compute, [T, out], dy!);
    linearBackward(bench.device, weight, gradient, dx, { tail: { u: factor, scale: 2, dz } });
    const du = bench.out("f32", [out, r]);
    matmul(bench.device, {
      a: gradient,
      b: bench.real(compute, [T, r], z!),
      c: du,
      transposeA: true,
      compute,
    });
    return { y, dx, dz, du };
  };
}

function head() {
  const [M, H, V] = [67, 97, 509];
  const next = stream(M);
  const [x, w, dw0] = [M * H, V * H, V * H].map((n) => numbers(next, n));
  const targets = integers(next, M, V);
  return (bench: Bench): Outputs => {
    const weight = bench.weight(V, H, w!);
    const [loss, dx, dw] = [bench.out("f32", [M]), bench.out("f32", [M, H]), bench.f32([V, H], dw0!)];
    const ones = bench.f32([M], new Float64Array(M).fill(1));
    headLoss(bench.device, weight, bench.f32([M, H], x!), bench.i32([M], targets), ones, loss, { dx, dw });
    embeddingBackward(bench.device, bench.i32([M], targets), dx, dw);
    return { loss, dx, dw };
  };
}

function attention(type: "f32" | "bf16") {
  const shape = { heads: 6, kvHeads: 2, headSize: 20, scale: 0.2 };
  const offsets = [0, 1, 72, 72, 131];
  const T = offsets.at(-1)!;
  const next = stream(7);
  const [q, k, v, d] = [6, 2, 2, 6].map((heads) => numbers(next, T * heads * 20));
  return (bench: Bench): Outputs => {
    const saved = {
      q: bench.real(type, [T, 6, 20], q!),
      k: bench.real(type, [T, 2, 20], k!),
      v: bench.real(type, [T, 2, 20], v!),
      o: bench.out(type, [T, 6, 20]),
      lse: bench.out("f32", [T, 6]),
    };
    const packed = { offsets: bench.i32([5], offsets), sequences: 4, longest: 71 };
    const [dq, dk, dv] = [6, 2, 2].map((heads) => bench.out("f32", [T, heads, 20]));
    attentionForward(bench.device, saved.q, saved.k, saved.v, shape, packed, saved.o, saved.lse);
    const gradients = { dq: dq!, dk: dk!, dv: dv! };
    attentionBackward(bench.device, { ...saved, dO: bench.f32([T, 6, 20], d!) }, shape, packed, gradients);
    return { o: saved.o, lse: saved.lse, ...gradients };
  };
}

const BODIES: Record<string, (bench: Bench) => Outputs> = {
  "linear f32": linear("f32"),
  "linear bf16": linear("bf16"),
  head: head(),
  "attention f32": attention("f32"),
  "attention bf16": attention("bf16"),
};

for (const { isa, one } of lab.cpu) {
  for (const threads of COUNTS) {
    test(`${threads} threads give the bytes of one, ${isa}`, async () => {
      const device = await openDevice({ library: "cpu", threads, isa });
      reserve(device, PLAN);
      for (const [name, body] of Object.entries(BODIES)) {
        const expected = runBytes(one, body);
        for (let round = 0; round < 3; round++)
          sameBytes(`${name}, ${isa}`, runBytes(device, body), expected);
      }
      closeDevice(device);
    });
  }
}

test.skipIf(lab.cpu.length === 0)("short jobs one behind the other do every element once", async () => {
  const device = await openDevice({ library: "cpu", threads: 8 });
  // About ten tasks a job.
  const n = 163_841;
  const jobs = 200;
  const sums = runBytes(device, (bench) => {
    const [x, y] = [bench.f32([n], new Float64Array(n).fill(1)), bench.zeros([n])];
    for (let job = 0; job < jobs; job++) axpby(device, 1, x, 1, y);
    expect(sumSquares(device, y)).toBe(n * jobs * jobs);
    return { y };
  });
  const values = new Float32Array(sums.y!.buffer);
  expect(values.every((value) => value === jobs)).toBe(true);
  closeDevice(device);
});
