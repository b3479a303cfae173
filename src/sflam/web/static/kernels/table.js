/** Every kind of operation that is neither a view nor a cell: how it is bound to its arrays. */

import { contiguous, countIn, loops, walk } from "../layout.js";
import * as moving from "./moving.js";
import * as rows from "./rows.js";

/** @typedef {import("../layout.js").Strided} Strided */
/** @typedef {import("./moving.js").Call} Call */
/** @typedef {import("./moving.js").Run} Run */

/**
 * `bind` gives what runs it; operands that `gaps` does not name are handed over without gaps; the first output may take
 * the memory of the operands in `over`.
 * @typedef {{bind: (call: Call) => Run, gaps: number[], over: number[]}} Kernel
 */

const kernel = (bind, { gaps = [], over = [] } = {}) => ({ bind, gaps, over });

/** A kind of `rows.js`: arrays as pairs of numbers and first place. */
const byRows = (run, over) => kernel(({ outs, operands, attributes }) => {
  const shape = outs[0].shape;
  const pair = (x) => [x.store.data, x.offset];
  if (outs.length > 1) return () => run(outs.map(pair), ...operands.map(pair), shape, attributes);
  return () => run(pair(outs[0]), ...operands.map(pair), shape, attributes);
}, { over });

/** Fill the result with what the product is added to. */
const zeros = (out) => () => out.store.data.fill(0, out.offset, out.offset + countIn(out.shape));

/** a @ b over the leading axes broadcast, added to what the result holds. */
function product(gemm, out, a, b) {
  const lead = out.shape.slice(0, -2), [height, width] = out.shape.slice(-2), inner = a.shape.at(-1);
  const strides = (x) => {
    const own = x.strides.slice(0, -2);
    const padded = [...new Array(lead.length - own.length).fill(0), ...own];
    return padded.map((stride, axis) => (x.shape.at(axis - lead.length - 2) === 1 && lead[axis] !== 1 ? 0 : stride));
  };
  const plan = loops(lead, [strides(out), strides(a), strides(b)]);
  const steps = plan.steps.map((own) => own.at(-1));
  const matrix = (x, offset) => ({ data: x.store.data, offset, row: x.strides.at(-2), column: x.strides.at(-1) });
  return () => walk(plan, [out.offset, a.offset, b.offset], ([o, x, y], count) => {
    for (let i = 0; i < count; i++, o += steps[0], x += steps[1], y += steps[2]) {
      gemm.product(o, out.strides.at(-2), matrix(a, x), matrix(b, y), height, inner, width);
    }
  });
}

/** @param {Call} call @returns {Run} */
function matmul({ outs: [out], operands: [a, b], gemm }) {
  const clear = zeros(out), add = product(gemm, out, a, b);
  return () => {
    clear();
    add();
  };
}

/** @param {Call} call @returns {Run} */
function addmm({ outs: [out], operands: [x, a, b], gemm }) {
  const add = product(gemm, out, a, b), size = countIn(out.shape);
  return () => {
    const data = x.store.data;
    if (data !== out.store.data) out.store.data.set(data.subarray(x.offset, x.offset + size), out.offset);
    else if (x.offset !== out.offset) data.copyWithin(out.offset, x.offset, x.offset + size);
    add();
  };
}

/** @param {Call} call @returns {Run} */
function linear({ outs: [out], operands: [x, w, bias], attributes: { transposed }, gemm }) {
  const width = out.shape.at(-1), inner = x.shape.at(-1), height = countIn(out.shape.slice(0, -1));
  const [row, column] = transposed ? w.strides : [w.strides[1], w.strides[0]];
  const clear = zeros(out);
  return () => {
    const to = out.store.data;
    if (bias) {
      const row = bias.store.data.subarray(bias.offset, bias.offset + width);
      for (let i = 0; i < height; i++) to.set(row, out.offset + i * width);
    } else clear();
    const a = { data: x.store.data, offset: x.offset, row: inner, column: 1 };
    gemm.product(out.offset, width, a, { data: w.store.data, offset: w.offset, row, column }, height, inner, width);
  };
}

const REDUCED = ["sum", "mean", "max", "any", "all"].map((kind) => [kind, kernel(moving.reduce(kind), { gaps: [0] })]);

/** @type {Map<string, Kernel>} */
export const KERNELS = new Map([
  ["softmax", byRows(rows.softmax, [0])],
  ["softmax_grad", byRows(rows.softmaxGrad, [0])],
  ["log_softmax", byRows(rows.logSoftmax, [0])],
  ["log_softmax_grad", byRows(rows.logSoftmaxGrad, [0])],
  ["layer_norm", byRows(rows.layerNorm, [0])],
  ["layer_norm_grad", byRows(rows.layerNormGrad, [0])],
  ...REDUCED,
  ["cumsum", kernel(moving.cumsum, { over: [0] })],
  ["matmul", kernel(matmul, { gaps: [0, 1] })],
  ["addmm", kernel(addmm, { gaps: [1, 2], over: [0] })],
  ["linear", kernel(linear, { gaps: [1] })],
  ["concat", kernel(moving.concat, { gaps: Array.from({ length: 1024 }, (_, at) => at) })],
  ["pad", kernel(moving.pad, { gaps: [0] })],
  ["take", kernel(moving.take)],
  ["take_along", kernel(moving.takeAlong, { gaps: [0, 1] })],
  ["one_hot", kernel(moving.oneHot)],
  ["fill", kernel(moving.fill)],
  ["arange", kernel(moving.arange)],
  ["count", kernel(moving.count)],
  ["dropout_mask", kernel(moving.dropoutMask)],
  ["uniform", kernel(moving.uniform)],
]);

/** @param {number[]} shape @returns {Omit<Strided, "store">} */
export const whole = (shape) => ({ offset: 0, shape, strides: contiguous(shape) });
