/**
 * SBoRA-FA (paper §3.1, protocol §1.6): A is r distinct one-hot rows, held as r column indices. A·x is a gather of r
 * inputs, ΔW = s·B touches r columns of W, and backward needs only those r numbers a token.
 */

import { arenaTensor } from "../native/arena.ts";
import {
  axpby,
  gatherColumns,
  linearBackward,
  linearForward,
  matmul,
  scatterAddColumns,
} from "../native/ops/index.ts";
import { readWeightColumns, writeWeightColumns } from "../native/weight.ts";
import { dropoutAt, f32, factor, i32, type Method } from "./adapter.ts";
import { drawIndices, withScratch } from "./draw.ts";

export const sboraFa: Method = {
  name: "sbora-fa",
  title: "SBoRA-FA",
  summary: "A = r one-hot rows (a gather); trains B [out,r]; changes r columns of W",
  keepsInput: false,
  maxRank: (site) => site.in,
  trainable: ({ out, rank }) => ({ B: f32(out, rank) }),
  frozen: ({ rank }) => ({ index: i32(rank) }),
  derived: () => ({}),

  initialise(device, adapter, _weight, draw) {
    drawIndices(device, factor(adapter.frozen, "index"), adapter.site, adapter.site.in, draw);
  },
  prepare() {},

  forward(pass, adapter, weight, x, y, beta) {
    const { site } = adapter;
    const z = arenaTensor(pass.kept, pass.compute, [x.shape[0]!, site.rank]);
    gatherColumns(pass.device, x, factor(adapter.frozen, "index"), dropoutAt(pass, site), z);
    const tail = { z, u: factor(adapter.trainable, "B"), scale: site.scaling };
    linearForward(pass.device, weight, x, y, { tail, beta });
    return { z };
  },

  backward(pass, adapter, weight, saved, _x, dy, dx, betaDx) {
    const { site } = adapter;
    const u = factor(adapter.trainable, "B");
    if (dx) {
      withScratch(pass.scratch, () => {
        const dz = arenaTensor(pass.scratch, "f32", [dy.shape[0]!, site.rank]);
        linearBackward(pass.device, weight, dy, dx, { tail: { u, scale: site.scaling, dz }, beta: betaDx });
        scatterAddColumns(pass.device, dz, factor(adapter.frozen, "index"), dropoutAt(pass, site), 1, dx);
      });
    }
    matmul(pass.device, {
      a: dy,
      transposeA: true,
      b: factor(saved, "z"),
      c: factor(adapter.gradient, "B"),
      alpha: site.scaling,
      beta: 1,
      compute: pass.compute,
    });
  },

  merge(device, adapter, weight, scratch) {
    const { site } = adapter;
    const columns = factor(adapter.frozen, "index");
    withScratch(scratch, () => {
      const values = arenaTensor(scratch, "f32", [site.out, site.rank]);
      readWeightColumns(device, weight, columns, values);
      axpby(device, site.scaling, factor(adapter.trainable, "B"), 1, values);
      writeWeightColumns(device, weight, columns, values);
    });
  },
};
