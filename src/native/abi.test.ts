/**
 * The ABI through its raw symbols: whatever a caller gets wrong is a status and a text that names the function and the
 * argument, never a crash. The arguments come from the header itself, so a new function is tested as it is declared.
 */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allocatedBytes, closeDevice, type Device, openDevice } from "./device.ts";
import { type Bench, everyDevice, lab, on } from "./ops/testing.ts";
import { createPatch, freePatch, type Patch } from "./patch.ts";

type Value = number | bigint | string | null | Uint8Array | BigInt64Array;
type Raw = Record<string, (...values: Value[]) => number>;
interface Parameter {
  readonly type: string;
  readonly name: string;
}

const HEADER = readFileSync(join(import.meta.dir, "../../kernels/sbora.h"), "utf8");
const FUNCTIONS = new Map<string, Parameter[]>();
for (const match of HEADER.replace(/\/\*[\s\S]*?\*\//g, "").matchAll(/SB_API int32_t (sb_\w+)\(([^)]*)\)/g)) {
  const parameters = match[2]!.split(",").map((text) => /^\s*(.*?)(\w+)\s*$/.exec(text)!);
  FUNCTIONS.set(
    match[1]!,
    parameters.map(([, type, name]) => ({ type: type!.trim(), name: name! })),
  );
}
FUNCTIONS.delete("sb_abi_version");

/** A valid value for every scalar by name; the shapes fit each other and a weight [4,4]. */
const SCALARS: Record<string, number> = {
  ...{ T: 2, H: 4, V: 4, N: 2, K: 1, D: 4, r: 2, M: 2, R: 2, P: 3, B: 1, S: 2, m: 2, n: 4, k: 2 },
  ...{ lda: 4, ldb: 4, ldc: 4, heads: 2, longest: 2, pages: 2, page: 2, max_pages: 2, out: 4, in: 4 },
  ...{ tokens: 2, width: 4, rank: 2, vocabulary: 4, bytes: 64, capacity: 1024, step: 1, threads: 1 },
  ...{ theta: 10_000, scaling: 2, count: 1, factor: 8, low_factor: 1, high_factor: 4, original: 8192 },
};
const OPTIONAL: Record<string, string[]> = {
  sb_open: ["isa"],
  sb_linear_forward: ["gain"],
  sb_linear_backward: ["dx"],
  sb_head_loss: ["dx", "dw"],
  sb_rms_norm_forward: ["rstd"],
  sb_rms_norm_backward: ["dw"],
  sb_attention_forward: ["lse"],
  sb_gather_columns: ["drop"],
  sb_scatter_add_columns: ["drop"],
  sb_column_dot: ["divisor"],
};
/** Any value is good. */
const FREE = new Set(["threads", "transpose_a", "transpose_b", "inverse", "by_columns", "key"]);
/** A valid call makes or ends something; only invalid ones are made here. */
const LIFETIMES =
  /^sb_(open|close|map|unmap|alloc|free|(weight|patch)_(create|free)|weight_create_nf4|weight_drop_replaced)$/;

function dropout(bench: Bench, changes: { p?: number; module?: bigint; record?: null } = {}): Uint8Array {
  const bytes = new Uint8Array(40);
  const fields = new DataView(bytes.buffer);
  const rows = bench.i32([2], [0, 1]).address;
  fields.setFloat64(0, changes.p ?? 0.25, true);
  fields.setBigUint64(8, 7n, true);
  fields.setBigUint64(16, changes.module ?? 1n, true);
  fields.setBigUint64(24, changes.record === null ? 0n : BigInt(rows), true);
  fields.setBigUint64(32, BigInt(rows), true);
  return bytes;
}

/** `patches`: those that it makes, for the caller to free. */
function validValue(bench: Bench, { type, name }: Parameter, patches: Patch[]): Value {
  if (type === "sb_context *") return bench.device.context;
  if (/^sb_(weight|patch|mapping) \*\*$/.test(type)) return new BigInt64Array(1);
  if (type === "sb_patch *const *") {
    const [weight, index] = [bench.weight(4, 4, new Float64Array(16)), bench.i32([1], [2])];
    patches.push(createPatch(bench.device, weight, "rows", index, bench.f32([1, 4], [1, 2, 3, 4])));
    return BigInt64Array.of(BigInt(patches.at(-1)!.handle));
  }
  if (type.includes("sb_weight *")) return bench.weight(4, 4, new Float64Array(16).fill(0.5)).handle;
  if (type.includes("sb_dropout")) return dropout(bench);
  if (type === "const char *") return name === "isa" ? null : "/nonexistent";
  if (type === "const int32_t *") {
    const values = { offsets: [0, 2, 2, 2], tables: [0, 1, 1, 0] }[name] ?? [0, 1, 2, 3];
    return bench.i32([4], values).address;
  }
  if (type.includes("*")) return bench.f32([64], new Float64Array(64).fill(0.5)).address;
  if (type === "uint64_t") return 1n;
  if (type === "double") return SCALARS[name] ?? 0.5;
  return SCALARS[name] ?? 0;
}

function call(device: Device, name: string, values: Value[]): string | null {
  const raw = device.symbols as unknown as Raw;
  return raw[name]!(...values) === 0 ? null : (device.symbols.sb_last_error() ?? "");
}

/** Calls `name` with valid arguments but for `changes`. @returns null, or the error's text */
function attempt(bench: Bench, name: string, changes: Record<string, Value> = {}): string | null {
  const patches: Patch[] = [];
  const values = FUNCTIONS.get(name)!.map((parameter) =>
    parameter.name in changes ? changes[parameter.name]! : validValue(bench, parameter, patches),
  );
  try {
    return call(bench.device, name, values);
  } finally {
    for (const patch of patches) freePatch(bench.device, patch);
  }
}

function badValues({ type, name }: Parameter): Value[] {
  if (FREE.has(name) || type === "uint64_t") return [];
  if (name === "step") return [-1, 0];
  if (type === "int64_t") return [-1, -(2 ** 52), 2 ** 62];
  if (type === "int32_t") return [-1, 7];
  if (type === "double") return [Number.NaN, Number.POSITIVE_INFINITY];
  return [null];
}

test.skipIf(lab.cpu.length === 0)("ops that take workspace need none for an empty shape", async () => {
  const device = await openDevice({ library: "cpu", threads: 2 });
  on(device, (bench) => {
    const empty: [string, Record<string, Value>][] = [
      ["sb_linear_forward", { T: 0 }],
      ["sb_linear_backward", { T: 0 }],
      ["sb_matmul", { m: 0 }],
      ["sb_matmul", { n: 0 }],
      ["sb_head_loss", { M: 0 }],
      ["sb_attention_forward", { T: 0, B: 0, longest: 0 }],
      ["sb_attention_backward", { T: 0, B: 0, longest: 0 }],
      ["sb_attention_paged", { T: 0 }],
    ];
    for (const [name, changes] of empty) {
      expect([name, attempt(bench, name, changes)]).toEqual([name, null]);
      expect(attempt(bench, name, { ...changes, ctx: null })).toMatch(/ctx is NULL/);
      expect(attempt(bench, name)).toMatch(/call sb_reserve/);
    }
  });
  closeDevice(device);
});

for (const [label, device] of everyDevice()) {
  describe(label, () => {
    for (const [name, parameters] of FUNCTIONS) {
      test(`${name} refuses every bad argument by name`, () => {
        const optional = OPTIONAL[name] ?? [];
        on(device, (bench) => {
          if (!LIFETIMES.test(name)) expect([name, attempt(bench, name)]).toEqual([name, null]);
          for (const parameter of parameters) {
            if (optional.includes(parameter.name)) {
              if (!LIFETIMES.test(name)) expect(attempt(bench, name, { [parameter.name]: null })).toBeNull();
              continue;
            }
            for (const value of badValues(parameter)) {
              const text = attempt(bench, name, { [parameter.name]: value });
              // A huge size is refused as such or for the shape it makes.
              const named = typeof value === "number" && value > 7 ? "" : `\\b${parameter.name} is `;
              expect([parameter.name, value, text]).toEqual([
                parameter.name,
                value,
                expect.stringMatching(new RegExp(`^${name}: .*${named}`)),
              ]);
            }
          }
        });
      });
    }

    test("empty shapes are done without a look at their pointers", () => {
      const empty: [string, Record<string, Value>][] = [
        ["sb_read", { bytes: 0, device: null, host: null }],
        ["sb_zero", { bytes: 0, device: null }],
        ["sb_weight_read_rows", { n: 0, rows: null, values: null }],
        ["sb_weight_write_columns", { n: 0, columns: null, values: null }],
        ["sb_patch_flip", { count: 0, patches: null }],
        ["sb_linear_forward", { T: 0, x: null, z: null, y: null }],
        ["sb_linear_forward", { r: 0, z: null, u: null }],
        ["sb_linear_backward", { T: 0, dy: null, dz: null, dx: null }],
        ["sb_linear_backward", { r: 0, u: null, dz: null }],
        ["sb_matmul", { m: 0, a: null, c: null }],
        ["sb_matmul", { k: 0, b: null }],
        ["sb_embedding_forward", { T: 0, ids: null, x: null }],
        ["sb_embedding_backward", { T: 0, ids: null, dx: null }],
        ["sb_head_loss", { M: 0, x: null, targets: null, weights: null, loss: null, dx: null }],
        ["sb_topk_log_softmax", { R: 0, logits: null, values: null, ids: null }],
        ["sb_rms_norm_forward", { T: 0, x: null, y: null }],
        ["sb_rms_norm_backward", { T: 0, x: null, dy: null, dx: null, rstd: null }],
        ["sb_rope_table", { P: 0, cosine: null, sine: null }],
        ["sb_rope", { T: 0, x: null, positions: null }],
        ["sb_attention_forward", { T: 0, B: 0, longest: 0, q: null, k: null, v: null, o: null, lse: null }],
        ["sb_attention_backward", { T: 0, B: 0, longest: 0, q: null, dq: null, dk: null, dv: null }],
        ["sb_kv_write", { T: 0, k: null, v: null, slots: null }],
        ["sb_attention_paged", { T: 0, q: null, o: null, sequences: null, positions: null }],
        ["sb_swiglu_forward", { n: 0, gate: null, up: null, h: null }],
        ["sb_swiglu_backward", { n: 0, gate: null, up: null, dh: null, dgate: null, dup: null }],
        ["sb_dropout_apply", { T: 0, x: null, y: null }],
        ["sb_gather_columns", { r: 0, columns: null, z: null }],
        ["sb_scatter_add_columns", { T: 0, z: null, y: null }],
        ["sb_gather_rows", { M: 0, x: null, rows: null, y: null }],
        ["sb_scatter_add_rows", { M: 0, x: null, rows: null, y: null }],
        ["sb_scale_columns", { T: 0, x: null, y: null }],
        ["sb_scale_rows", { n: 0, x: null, y: null }],
        ["sb_column_dot", { T: 0, a: null, b: null }],
        ["sb_row_dot", { n: 0, a: null, b: null, out: null }],
        ["sb_dora_gain", { n: 0, squares: null, magnitude: null, norm: null, gain: null }],
        ["sb_axpby", { n: 0, x: null, y: null }],
        ["sb_sum_squares", { n: 0, x: null }],
        ["sb_adamw", { n: 0, p: null, g: null, m: null, v: null }],
        ["sb_random_uniform", { n: 0, x: null }],
        ["sb_random_normal", { n: 0, x: null }],
      ];
      on(device, (bench) => {
        for (const [name, changes] of empty) {
          // An attention without rows has offsets [0].
          const offsets = "B" in changes ? { offsets: bench.i32([1], [0]).address } : {};
          const text = attempt(bench, name, { ...changes, ...offsets });
          expect([name, text]).toEqual([name, null]);
        }
      });
    });

    test("indices out of range are refused with their value and place", () => {
      on(device, (bench) => {
        const cases: [string, string, number[], RegExp][] = [
          ["sb_weight_read_rows", "rows", [0, 4, 0, 0], /rows\[1\] is 4/],
          ["sb_weight_write_rows", "rows", [-1, 1, 2, 3], /rows\[0\] is -1/],
          ["sb_weight_read_columns", "columns", [0, 4, 0, 0], /columns\[1\] is 4/],
          ["sb_weight_write_columns", "columns", [-1, 1, 2, 3], /columns\[0\] is -1/],
          ["sb_patch_create", "index", [0, 4, 1, 2], /index\[1\] is 4/],
          ["sb_patch_create", "index", [0, 3, 1, 3], /index\[3\] is 3, which stands before it already/],
          ["sb_embedding_forward", "ids", [0, 4], /ids\[1\] is 4/],
          ["sb_embedding_backward", "ids", [-5, 0], /ids\[0\] is -5/],
          ["sb_head_loss", "targets", [0, 4], /targets\[1\] is 4/],
          ["sb_rope", "positions", [0, 3], /positions\[1\] is 3/],
          ["sb_attention_forward", "offsets", [1, 2], /offsets\[0\] is 1/],
          ["sb_attention_forward", "offsets", [0, -1], /offsets\[1\] is -1/],
          ["sb_attention_forward", "offsets", [0, 3], /offsets\[1\] is 3/],
          ["sb_attention_backward", "offsets", [0, 1], /offsets\[1\] is 1; expected .*\bT\b/],
          ["sb_kv_write", "slots", [0, 4], /slots\[1\] is 4/],
          ["sb_attention_paged", "tables", [-1, 0, 0, 0], /tables\[0,0\] is -1/],
          ["sb_attention_paged", "tables", [0, 0, 2, 0], /tables\[1,0\] is 2/],
          ["sb_attention_paged", "sequences", [0, 2], /sequences\[1\] is 2/],
          ["sb_attention_paged", "positions", [0, 4], /positions\[1\] is 4/],
          ["sb_gather_columns", "columns", [0, 4], /columns\[1\] is 4/],
          ["sb_scatter_add_columns", "columns", [0, -1], /columns\[1\] is -1/],
          ["sb_gather_rows", "rows", [0, -1], /rows\[1\] is -1/],
          ["sb_scatter_add_rows", "rows", [-2, 0], /rows\[0\] is -2/],
        ];
        for (const [name, argument, indices, expected] of cases) {
          const text = attempt(bench, name, { [argument]: bench.i32([indices.length], indices).address });
          expect(text).toMatch(new RegExp(`^${name}: `));
          expect(text).toMatch(expected);
        }
        for (const name of ["sb_dropout_apply", "sb_gather_columns", "sb_scatter_add_columns"]) {
          for (const p of [-0.1, 1, Number.NaN]) {
            expect(attempt(bench, name, { drop: dropout(bench, { p }) })).toMatch(/drop\.p is /);
          }
          expect(attempt(bench, name, { drop: dropout(bench, { module: 2n ** 32n }) })).toMatch(
            /drop\.module/,
          );
          expect(attempt(bench, name, { drop: dropout(bench, { record: null }) })).toMatch(
            /drop\.record is NULL/,
          );
        }
      });
    });

    test("sizes that do not fit each other are refused", () => {
      on(device, (bench) => {
        const cases: [string, Record<string, number>, RegExp][] = [
          ["sb_weight_read_rows", { n: 5 }, /n is 5; expected 0 to 4/],
          ["sb_patch_create", { n: 5 }, /n is 5; expected 0 to 4/],
          ["sb_matmul", { lda: 1 }, /lda is 1; expected at least 2, the columns of a/],
          ["sb_matmul", { ldb: 3 }, /ldb is 3; expected at least 4/],
          ["sb_matmul", { ldc: 3 }, /ldc is 3/],
          ["sb_topk_log_softmax", { k: 5 }, /k is 5; expected 0 to 4/],
          ["sb_topk_log_softmax", { k: 0 }, /k is 0; expected 1/],
          ["sb_rope", { D: 3 }, /D is 3; expected an even number/],
          ["sb_rope_table", { high_factor: 1 }, /low_factor is 1; expected less than high_factor/],
          ["sb_attention_forward", { N: 3, K: 2 }, /N is 3; expected a multiple of K = 2/],
          ["sb_attention_forward", { longest: 3 }, /longest is 3; expected 0 to 2/],
          ["sb_attention_forward", { longest: 1 }, /offsets\[1\] is 2\b.*longest/],
          ["sb_gather_columns", { r: 5 }, /r is 5; expected 0 to 4/],
          ["sb_adamw", { b1: 1 }, /b1 is 1/],
          ["sb_adamw", { step: 0 }, /step is 0/],
          ["sb_scale_rows", { T: 2 ** 40, n: 2 ** 40 }, /shape \(T, n\) of x, y has more than 2\^56/],
          ["sb_describe", { capacity: 5 }, /capacity is 5\b/],
          ["sb_reserve", { tokens: 2 ** 28 + 1 }, /tokens is 268435457; expected 0 to 2\^28/],
          ["sb_reserve", { width: 2 ** 40 }, /width is 1099511627776; expected 0 to 2\^28/],
          ["sb_reserve", { rank: 2 ** 55 }, /rank is \d+; expected 0 to 2\^28/],
          ["sb_reserve", { vocabulary: 2 ** 55 }, /vocabulary is \d+; expected 0 to 2\^28/],
        ];
        for (const [name, changes, expected] of cases)
          expect(attempt(bench, name, changes)).toMatch(expected);
      });
    });

    test("memory is zeroed, aligned, counted, and freed by its own context alone", () => {
      const before = allocatedBytes(device);
      const { symbols, context } = device;
      const out = new BigInt64Array(1);
      for (const bytes of [0, 1, 100, 1 << 20]) {
        expect(symbols.sb_alloc(context, bytes, out)).toBe(0);
        const address = Number(out[0]);
        expect(address % 64).toBe(0);
        expect(allocatedBytes(device)).toBe(before + bytes);
        const host = new Uint8Array(bytes).fill(1);
        expect(call(device, "sb_read", [context, address, host, bytes])).toBeNull();
        expect(host.every((byte) => byte === 0)).toBe(true);
        if (bytes > 64) {
          expect(call(device, "sb_free", [context, address + 64])).toMatch(/was not allocated by this/);
        }
        expect(call(device, "sb_free", [context, address])).toBeNull();
        expect(allocatedBytes(device)).toBe(before);
      }
      expect(call(device, "sb_alloc", [context, 2 ** 54, out])).toMatch(/18014398509481984 bytes could not/);
      expect(allocatedBytes(device)).toBe(before);
    });

    test("a weight with NaN or infinity is refused by row and column, and counted when it is good", () => {
      const before = allocatedBytes(device);
      const handle = new BigInt64Array(1);
      const create = (data: ArrayBufferView, dtype: number) =>
        call(device, "sb_weight_create", [
          device.context,
          new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
          ...[dtype, 2, 3, 0],
          handle,
        ]);
      expect(create(Float32Array.of(0, 1, 2, 3, Number.NaN, 5), 0)).toMatch(/row 1, column 1/);
      expect(create(Uint16Array.of(0, 0, 0x7c00, 0, 0, 0), 1)).toMatch(/row 0, column 2/);
      expect(create(Uint16Array.of(0, 0, 0, 0, 0, 0xff80), 2)).toMatch(/row 1, column 2/);
      expect(allocatedBytes(device)).toBe(before);
      expect(create(new Float32Array(6), 0)).toBeNull();
      expect(allocatedBytes(device)).toBeGreaterThanOrEqual(before + 24);
      expect(call(device, "sb_weight_free", [device.context, Number(handle[0])])).toBeNull();
      expect(allocatedBytes(device)).toBe(before);
    });

    test("a file that cannot be mapped is an error with its path", () => {
      const folder = mkdtempSync(join(tmpdir(), "sbora-abi-"));
      try {
        const [empty, full] = [join(folder, "empty"), join(folder, "full")];
        writeFileSync(empty, "");
        writeFileSync(full, "abc");
        const out = new BigInt64Array(3);
        const map = (path: string) =>
          call(device, "sb_map", [path, out.subarray(0, 1), out.subarray(1, 2), out.subarray(2, 3)]);
        expect(map(join(folder, "missing"))).toBe(
          `${folder}/missing: open failed: No such file or directory`,
        );
        expect(map(folder)).toBe(`${folder}: is a folder; expected a file`);
        expect(map(empty)).toBe(`${empty}: the file is empty`);
        expect(map("/dev/null")).toBe("/dev/null: is no regular file");
        expect(map(full)).toBeNull();
        expect(out[2]).toBe(3n);
        const host = new Uint8Array(3);
        expect(call(device, "sb_read", [device.context, Number(out[1]), host, 3])).toBeNull();
        expect(new TextDecoder().decode(host)).toBe("abc");
        expect(call(device, "sb_unmap", [Number(out[0])])).toBeNull();
      } finally {
        rmSync(folder, { recursive: true });
      }
    });

    test("an instruction set nobody has is an error", () => {
      const out = new BigInt64Array(1);
      expect(call(device, "sb_open", [1, "mmx", out])).toMatch(/"mmx"/);
      expect(out[0]).toBe(0n);
    });
  });
}
