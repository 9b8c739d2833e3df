/**
 * SBoRA-FB (paper §3.1, protocol §1.7): B is r distinct one-hot columns, held as r row indices. B·z is a scatter-add
 * into r outputs and ΔW = s·A touches r rows of W. A starts at zero and is all that trains.
 */

import { arenaTensor } from "../native/arena.ts";
import {
  axpby,
  dropoutApply,
  gatherColumns,
  linearBackward,
  linearForward,
  matmul,
  scatterAddColumns,
} from "../native/ops/index.ts";
import { readWeightRows, writeWeightRows } from "../native/weight.ts";
import { dropoutAt, f32, factor, i32, type Method } from "./adapter.ts";
import { drawIndices, droppedInput, withScratch } from "./draw.ts";

export const sboraFb: Method = {
  name: "sbora-fb",
  title: "SBoRA-FB",
  summary: "B = r one-hot columns (a scatter-add); trains A [r,in]; changes r rows of W",
  keepsInput: true,
  maxRank: (site) => site.out,
  trainable: ({ in: width, rank }) => ({ A: f32(rank, width) }),
  frozen: ({ rank }) => ({ index: i32(rank) }),
  derived: () => ({}),

  initialise(device, adapter, _weight, draw) {
    drawIndices(device, factor(adapter.frozen, "index"), adapter.site, adapter.site.out, draw);
  },
  prepare() {},

  forward(pass, adapter, weight, x, y, beta) {
    const { site } = adapter;
    linearForward(pass.device, weight, x, y, { beta });
    withScratch(pass.scratch, () => {
      const z = arenaTensor(pass.scratch, "f32", [x.shape[0]!, site.rank]);
      const a = droppedInput(pass, site, x);
      matmul(pass.device, {
        a,
        b: factor(adapter.trainable, "A"),
        transposeB: true,
        c: z,
        compute: pass.compute,
      });
      scatterAddColumns(pass.device, z, factor(adapter.frozen, "index"), null, site.scaling, y);
    });
    return {};
  },

  backward(pass, adapter, weight, _saved, x, dy, dx, betaDx) {
    if (!x) throw new Error("SBoRA-FB needs the linear's input");
    const { site } = adapter;
    const drop = dropoutAt(pass, site);
    withScratch(pass.scratch, () => {
      const dz = arenaTensor(pass.scratch, "f32", [dy.shape[0]!, site.rank]);
      gatherColumns(pass.device, dy, factor(adapter.frozen, "index"), null, dz);
      const common = { a: dz, alpha: site.scaling, compute: pass.compute };
      const dA = factor(adapter.gradient, "A");
      matmul(pass.device, { ...common, transposeA: true, b: droppedInput(pass, site, x), c: dA, beta: 1 });
      if (!dx) return;
      linearBackward(pass.device, weight, dy, dx, { beta: betaDx });
      const A = factor(adapter.trainable, "A");
      if (drop) {
        const masked = arenaTensor(pass.scratch, "f32", [dy.shape[0]!, site.in]);
        matmul(pass.device, { ...common, b: A, c: masked });
        dropoutApply(pass.device, masked, drop, dx, 1);
      } else {
        matmul(pass.device, { ...common, b: A, c: dx, beta: 1 });
      }
    });
  },

  merge(device, adapter, weight, scratch) {
    const { site } = adapter;
    const rows = factor(adapter.frozen, "index");
    withScratch(scratch, () => {
      const values = arenaTensor(scratch, "f32", [site.rank, site.in]);
      readWeightRows(device, weight, rows, values);
      axpby(device, site.scaling, factor(adapter.trainable, "A"), 1, values);
      writeWeightRows(device, weight, rows, values);
    });
  },
};
