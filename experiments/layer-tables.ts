/** Tables 1 and 2 on a real layer: the paper's formulas, corrected, beside what our library allocated and computed. */
import type { MethodName } from "../src/adapters/adapter.ts";
import { methods } from "../src/adapters/registry.ts";
import { countOperations, type Operations } from "../src/native/counted.ts";
import type { Device } from "../src/native/device.ts";
import { freeWeight } from "../src/native/weight.ts";
import { MISSING, right, type Section } from "../src/reporting/table.ts";
import { type Claim, claimsSection, counted } from "./claims.ts";
import { type Formula, type LayerSize, table1, table2 } from "./formulas.ts";
import { grouped, type LayerPlan, type LayerTable, layerTitle } from "./layer-command.ts";
import { attachOne, openWeight, passOnce } from "./one-layer.ts";
import { methodTitle } from "./parameters.ts";
import { tableMethods } from "./recipes/table3.ts";

const F32 = 4;
/** Bytes; the library's allocations begin at multiples of it and take whole ones. */
const ALIGNMENT = 64;
/** Tokens of the pass whose saved numbers are counted: large enough that the arena's 64-byte steps do not show. */
const TOKENS = 16;

const sizeOf = ({ source: { shape }, rank }: LayerPlan): LayerSize => ({ ...shape, rank });
const withValue = ({ text, value }: Formula, size: LayerSize): string => `${text} = ${grouped(value(size))}`;

// ---- Table 1: numbers stored ----

export interface CountedStorage {
  readonly method: MethodName;
  /** Numbers that the library gave out, each of 4 bytes. */
  readonly trained: number;
  readonly total: number;
  readonly gradient: number;
  /** Bytes while training: parameters, gradients, both moments, frozen and derived tensors. */
  readonly trainingBytes: number;
  /** Bytes kept from forward to backward for one token: the method's own, and the linear's input where it asks for it. */
  readonly savedBytes: number;
  readonly inputBytes: number;
}

export function countStorage(device: Device, plan: LayerPlan): CountedStorage[] {
  const weight = openWeight(device, plan.source);
  const rows = tableMethods.map((method): CountedStorage => {
    const layer = attachOne(device, plan.source, weight, methods[method], plan.rank);
    const { trained, gradient, frozen, derived } = layer.bytes;
    const { saved, input } = passOnce(device, weight, layer, TOKENS);
    layer.free();
    return {
      method,
      trained: trained / F32,
      total: (trained + frozen) / F32,
      gradient: gradient / F32,
      // AdamW holds two moments of the parameters' size.
      trainingBytes: 3 * trained + gradient + frozen + derived,
      savedBytes: saved / TOKENS,
      inputBytes: input / TOKENS,
    };
  });
  freeWeight(device, weight);
  return rows;
}

/** At most two tensors a count, each rounded up to 64 bytes. */
function equalButForRounding(found: number, wanted: number): boolean {
  const step = ALIGNMENT / F32;
  return found === wanted || (found > wanted && found - wanted < 2 * step && found % step === 0);
}

function storageFormulas(plan: LayerPlan): Section {
  const size = sizeOf(plan);
  return {
    title: `Table 1, formulas: numbers stored for ${layerTitle(plan)}`,
    table: {
      columns: ["method", "trained", "stored in all", "stored in all, as printed", "gradient"].map(
        (title) => ({
          title,
        }),
      ),
      rows: table1.map(({ method, trained, total, printed, gradient }) => [
        methodTitle(method),
        withValue(trained, size),
        withValue(total, size),
        printed ? withValue(printed, size) : "the same",
        withValue(gradient, size),
      ]),
    },
    paragraphs: [
      "The paper's totals of SBoRA-FA and SBoRA-FB are each other's: FA stores r indices and B [out,r], FB r indices and A [r,in].",
    ],
  };
}

function storageSections(plan: LayerPlan, rows: readonly CountedStorage[]): Section[] {
  const size = sizeOf(plan);
  const of = (method: MethodName): CountedStorage => rows.find((row) => row.method === method)!;
  const claims = table1.map(({ method, trained, total, gradient }): Claim => {
    const row = of(method);
    const wanted = [trained, total, gradient].map((formula) => formula.value(size));
    const found = [row.trained, row.total, row.gradient];
    return {
      claim: `${methodTitle(method)}: trained, stored and gradient as in the formulas`,
      verdict: counted(wanted.every((value, i) => equalButForRounding(found[i]!, value))),
      here: found.map(grouped).join(", "),
      paper: wanted.map(grouped).join(", "),
    };
  });
  return [
    storageFormulas(plan),
    {
      title: "Table 1, counted: what the library gave out (sb_allocated) for the same layer",
      table: {
        columns: [
          { title: "method" },
          right("trained"),
          right("stored in all"),
          right("gradient"),
          right("bytes while training"),
          right("of LoRA's"),
          right("saved a token"),
          right("input a token"),
        ],
        rows: rows.map((row) => [
          methodTitle(row.method),
          grouped(row.trained),
          grouped(row.total),
          grouped(row.gradient),
          grouped(row.trainingBytes),
          `${((100 * row.trainingBytes) / of("lora").trainingBytes).toFixed(0)} %`,
          `${grouped(row.savedBytes)} B`,
          row.inputBytes > 0 ? `${grouped(row.inputBytes)} B` : MISSING,
        ]),
      },
      paragraphs: [
        "Bytes while training: f32 parameters, gradients and two AdamW moments, indices (int32), frozen factors, DoRA's norms and gains. Saved: what the method keeps from forward to backward (f32, no dropout); input: the linear's own input, which LoRA, DoRA and SBoRA-FB ask for and linears with one input share.",
      ],
    },
    claimsSection("Counted against the corrected formulas", claims, [
      "Every tensor is given out in steps of 64 bytes, sixteen numbers: r indices take the next multiple.",
    ]),
  ];
}

export const storageTable: LayerTable = {
  name: "table1",
  planned: (plan) => [storageFormulas(plan)],
  counted(device, plan) {
    const rows = countStorage(device, plan);
    return { sections: storageSections(plan, rows), json: { layer: sizeOf(plan), counted: rows } };
  },
};

// ---- Table 2: operations for one vector ----

export interface CountedOperations {
  readonly method: MethodName;
  readonly forward: Operations;
  readonly backward: Operations;
  /** Once an optimizer step, whatever the number of tokens (DoRA's norm). */
  readonly step: Operations;
}

export function countLayerOperations(device: Device, plan: LayerPlan): CountedOperations[] {
  const bench = countOperations(device);
  const weight = openWeight(bench.device, plan.source);
  const rows = tableMethods.map((method): CountedOperations => {
    const layer = attachOne(bench.device, plan.source, weight, methods[method], plan.rank);
    const parts: Operations[] = [];
    bench.reset();
    passOnce(bench.device, weight, layer, 1, () => {
      parts.push({ ...bench.total });
      if (bench.unknown.size > 0)
        throw new Error(`operations without a rule: ${[...bench.unknown].join(", ")}`);
      bench.reset();
    });
    layer.prepare(bench.device, weight);
    const step = { ...bench.total };
    layer.free();
    return { method, forward: parts[0]!, backward: parts[1]!, step };
  });
  freeWeight(bench.device, weight);
  return rows;
}

function operationFormulas(plan: LayerPlan): Section {
  const size = sizeOf(plan);
  return {
    title: `Table 2, formulas: operations for one vector through ${layerTitle(plan)}`,
    table: {
      columns: ["method", "multiplications", "additions"].map((title) => ({ title })),
      rows: table2.map(({ method, multiplications, additions }) => [
        methodTitle(method),
        withValue(multiplications, size),
        withValue(additions, size),
      ]),
    },
    paragraphs: [
      "The paper writes W as k×d here and as d×k in Table 1; out and in are the same in both tables of ours. The multiplication by s is left out.",
    ],
  };
}

function operationSections(plan: LayerPlan, rows: readonly CountedOperations[]): Section[] {
  const size = sizeOf(plan);
  const frozen = size.out * size.in;
  const extra = ({ multiplications }: Operations): string =>
    `+${((100 * (multiplications - frozen)) / frozen).toFixed(1)} %`;
  const claims = table2.map(({ method, multiplications, additions }): Claim => {
    const { forward } = rows.find((row) => row.method === method)!;
    const wanted = [multiplications.value(size), additions.value(size)];
    const found = [forward.multiplications, forward.additions];
    return {
      claim: `${methodTitle(method)}: forward operations as in the formulas`,
      verdict: counted(wanted.every((value, i) => value === found[i])),
      here: found.map(grouped).join(", "),
      paper: wanted.map(grouped).join(", "),
    };
  });
  return [
    operationFormulas(plan),
    {
      title: "Table 2, counted: the products and sums that our library was asked for, one vector, no dropout",
      table: {
        columns: [
          { title: "method" },
          right("forward ×"),
          right("forward +"),
          right("over W alone"),
          right("backward ×"),
          right("backward +"),
          right("over W alone"),
          right("once a step ×"),
        ],
        rows: rows.map(({ method, forward, backward, step }) => [
          methodTitle(method),
          grouped(forward.multiplications),
          grouped(forward.additions),
          extra(forward),
          grouped(backward.multiplications),
          grouped(backward.additions),
          extra(backward),
          step.multiplications > 0 ? grouped(step.multiplications) : MISSING,
        ]),
      },
      paragraphs: [
        "W alone: out·in multiplications, forward for the output and backward for the input's gradient; its own gradient is never formed. Once a step: DoRA's norm of W + s·BA, whatever the number of tokens; the paper's code takes it in every forward.",
      ],
    },
    claimsSection("Counted against the formulas", claims, []),
  ];
}

export const operationTable: LayerTable = {
  name: "table2",
  planned: (plan) => [operationFormulas(plan)],
  counted(device, plan) {
    const rows = countLayerOperations(device, plan);
    return { sections: operationSections(plan, rows), json: { layer: sizeOf(plan), counted: rows } };
  },
};
