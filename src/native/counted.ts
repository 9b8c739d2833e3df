/**
 * A device whose multiplications and additions are counted from the shapes of its calls: what a method really computes,
 * beside what a formula says. A sum of n products is n multiplications and n - 1 additions, and one more where it is added
 * to what was there. Factors that a call applies on the way (scale, gain, alpha, beta) are left out, as the paper does.
 */
import type { Device } from "./device.ts";
import { type NativeSymbols, SIGNATURES } from "./symbols.ts";

export interface Operations {
  multiplications: number;
  additions: number;
}

export interface CountedDevice {
  /** Takes the place of the given device, which must not be used or closed besides. */
  readonly device: Device;
  /** Since the last `reset`. */
  readonly total: Operations;
  /** Functions called since then that compute something and have no rule here: where there are any, `total` is too small. */
  readonly unknown: ReadonlySet<string>;
  reset(): void;
}

type Values = readonly (number | bigint | null | string | object)[];
type Rule = (values: Values) => Operations;

/** `outputs` sums of `length` products each. */
function sums(outputs: number, length: number, onTop: boolean): Operations {
  const each = length > 0 ? length - (onTop ? 0 : 1) : 0;
  return { multiplications: outputs * length, additions: outputs * each };
}

function plus(a: Operations, b: Operations): Operations {
  return { multiplications: a.multiplications + b.multiplications, additions: a.additions + b.additions };
}

const NOTHING: Operations = { multiplications: 0, additions: 0 };

/** Moves numbers, or makes them, and computes none. */
const FREE =
  /^sb_(abi|last|open|close|describe|sync|reserve|alloc|free|allocated|read|write|copy|zero|map|unmap|weight_(create|free|read|write)|gather|random)/;

export function countOperations(device: Device): CountedDevice {
  const total: Operations = { multiplications: 0, additions: 0 };
  const unknown = new Set<string>();
  /** Shapes of the weights made on this device, by handle. */
  const weights = new Map<number, { out: number; in: number }>();
  const number = (values: Values, at: number): number => Number(values[at]);
  const shapeOf = (handle: unknown): { out: number; in: number } => {
    const shape = weights.get(Number(handle));
    if (!shape) throw new Error("a product with a weight that was not made on the counted device");
    return shape;
  };
  const rules: Partial<Record<keyof NativeSymbols, Rule>> = {
    // ctx weight x type T z type u r scale gain beta y type
    sb_linear_forward(values) {
      const { out, in: width } = shapeOf(values[1]);
      return sums(number(values, 4) * out, width + number(values, 8), number(values, 11) !== 0);
    },
    // ctx weight dy type T u r scale dz beta dx
    sb_linear_backward(values) {
      const { out, in: width } = shapeOf(values[1]);
      const [T, r] = [number(values, 4), number(values, 6)];
      const input = values[10] === null ? NOTHING : sums(T * width, out, number(values, 9) !== 0);
      return plus(input, sums(T * r, out, false));
    },
    // ctx transposes m n k alpha a.. b.. beta
    sb_matmul: (values) =>
      sums(number(values, 3) * number(values, 4), number(values, 5), number(values, 13) !== 0),
    // ctx z T r
    sb_scatter_add_columns: (values) => ({
      multiplications: 0,
      additions: number(values, 2) * number(values, 3),
    }),
    // ctx alpha x type beta y type n
    sb_axpby: (values) => ({
      multiplications: 0,
      additions: number(values, 4) === 0 ? 0 : number(values, 7),
    }),
    // ctx a b type T n: out[n] += sums over T
    sb_column_dot: (values) => sums(number(values, 5), number(values, 4), true),
    // ctx a b rows n alpha beta out
    sb_row_dot: (values) => sums(number(values, 3), number(values, 4), number(values, 6) !== 0),
    sb_weight_row_squares(values) {
      const { out, in: width } = shapeOf(values[1]);
      return sums(out, width, false);
    },
    // One factor a number, no sum.
    sb_scale_columns: () => NOTHING,
    sb_scale_rows: () => NOTHING,
    sb_dora_gain: () => NOTHING,
  };
  const counted = (name: keyof NativeSymbols): ((...values: never[]) => unknown) => {
    const call = device.symbols[name] as (...values: never[]) => unknown;
    const rule = rules[name];
    return (...values) => {
      const result = call(...values);
      // Dense or NF4: both have out and in there, and the handle last.
      if (name.startsWith("sb_weight_create") && result === 0) {
        const [, , , out, width] = values as Values;
        const handle = (values as Values).at(-1) as BigInt64Array;
        weights.set(Number(handle[0]), { out: Number(out), in: Number(width) });
      }
      if (rule) {
        const { multiplications, additions } = rule(values);
        total.multiplications += multiplications;
        total.additions += additions;
      } else if (!FREE.test(name)) unknown.add(name);
      return result;
    };
  };
  const names = Object.keys(SIGNATURES) as (keyof NativeSymbols)[];
  const symbols = Object.fromEntries(names.map((name) => [name, counted(name)]));
  return {
    device: { ...device, symbols: symbols as unknown as NativeSymbols },
    total,
    unknown,
    reset() {
      total.multiplications = 0;
      total.additions = 0;
      unknown.clear();
    },
  };
}
