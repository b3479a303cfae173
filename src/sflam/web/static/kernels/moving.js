/** Operations that move, make or add up numbers: each is bound to its arrays once, and returns what runs it. */

import { WireError } from "../errors.js";
import { contiguous, copier, countIn, loops, walk } from "../layout.js";
import { COLUMN, mix, tokenKeys } from "../noise.js";

/** @typedef {import("../layout.js").Strided} Strided */
/** What a run's masks hang on: its seed, and how many of the n's of the mini-batch came before it.
 * @typedef {{seed: bigint | number, first: number}} Draw */
/** @typedef {{outs: Strided[], operands: Strided[], attributes: Record<string, any>, n: number, gemm: any}} Call */
/** @typedef {(draw: Draw) => void} Run */

/** The part of an array along an axis. */
const along = (x, axis, start, size) => ({
  ...x,
  offset: x.offset + start * x.strides[axis],
  shape: x.shape.with(axis, size),
});

/** Side by side along the axis. @param {Call} call @returns {Run} */
export function concat({ outs: [out], operands, attributes: { axis } }) {
  let start = 0;
  const copies = operands.map((x) => {
    const copy = copier(along(out, axis, start, x.shape[axis]), x);
    start += x.shape[axis];
    return copy;
  });
  return () => copies.forEach((copy) => copy());
}

/** Zeros before and after along the axis. @param {Call} call @returns {Run} */
export function pad({ outs: [out], operands: [x], attributes: { axis, before } }) {
  const copy = copier(along(out, axis, before, x.shape[axis]), x);
  return () => {
    out.store.data.fill(0, out.offset, out.offset + countIn(out.shape));
    copy();
  };
}

function checked(id, size) {
  if (!(id >= 0 && id < size)) {
    throw new WireError(`the id ${id} was looked up in a table of ${size}; prepare the data with the tokenizer of this ` +
      "job's model");
  }
  return id;
}

/** table[ids]. @param {Call} call @returns {Run} */
export function take({ outs: [out], operands: [table, ids] }) {
  const width = countIn(table.shape.slice(1)), count = countIn(ids.shape);
  return () => {
    const to = out.store.data, from = table.store.data, rows = ids.store.data;
    for (let i = 0; i < count; i++) {
      const start = table.offset + checked(rows[ids.offset + i], table.shape[0]) * width;
      for (let j = 0; j < width; j++) to[out.offset + i * width + j] = from[start + j];
    }
  };
}

/** take_along_axis(x, ids, axis). @param {Call} call @returns {Run} */
export function takeAlong({ outs: [out], operands: [x, ids], attributes: { axis } }) {
  const strides = x.strides.with(axis, 0), step = x.strides[axis];
  const plan = loops(out.shape, [out.strides, ids.strides, strides]);
  const [os, is, xs] = plan.steps.map((steps) => steps.at(-1));
  return () => {
    const to = out.store.data, from = x.store.data, rows = ids.store.data;
    walk(plan, [out.offset, ids.offset, x.offset], ([o, i, a], count) => {
      for (let k = 0; k < count; k++, o += os, i += is, a += xs) to[o] = from[a + checked(rows[i], x.shape[axis]) * step];
    });
  };
}

/** 1 where the last axis counts to the id, else 0; an id out of range gives zeros. @param {Call} call @returns {Run} */
export function oneHot({ outs: [out], operands: [ids] }) {
  const size = out.shape.at(-1), count = countIn(ids.shape);
  return () => {
    const to = out.store.data, rows = ids.store.data;
    to.fill(0, out.offset, out.offset + count * size);
    for (let i = 0; i < count; i++) {
      const id = rows[ids.offset + i];
      if (id >= 0 && id < size) to[out.offset + i * size + id] = 1;
    }
  };
}

const FOLDS = {
  sum: { start: 0, fold: (x, at, step, count, total) => {
    for (let i = 0; i < count; i++, at += step) total += x[at];
    return total;
  } },
  max: { start: -Infinity, fold: (x, at, step, count, most) => {
    for (let i = 0; i < count; i++, at += step) most = Math.max(most, x[at]);
    return most;
  } },
  any: { start: 0, fold: (x, at, step, count, found) => {
    for (let i = 0; i < count; i++, at += step) found |= x[at];
    return found;
  } },
  all: { start: 1, fold: (x, at, step, count, found) => {
    for (let i = 0; i < count; i++, at += step) found &= x[at];
    return found;
  } },
};

/** sum, mean, max, any or all over axes; sums are doubles. @param {string} kind @returns {(call: Call) => Run} */
export const reduce = (kind) => ({ outs: [out], operands: [x], attributes: { axes } }) => {
  const { start, fold } = FOLDS[kind === "mean" ? "sum" : kind];
  const inside = axes.map((axis) => x.shape[axis]);
  const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const outer = loops(kept.map((axis) => x.shape[axis]), [contiguous(kept.map((axis) => x.shape[axis])), kept.map((axis) => x.strides[axis])]);
  const inner = loops(inside, [axes.map((axis) => x.strides[axis])]);
  const [os, xs] = outer.steps.map((steps) => steps.at(-1)), step = inner.steps[0].at(-1);
  const total = countIn(inside), rows = countIn(out.shape);
  return () => {
    const to = out.store.data, from = x.store.data;
    if (!total) {
      to.fill(kind === "mean" ? NaN : start, out.offset, out.offset + rows);
      return;
    }
    walk(outer, [out.offset, x.offset], ([o, a], count) => {
      for (let i = 0; i < count; i++, o += os, a += xs) {
        let value = start;
        if (inner.sizes.length === 1) value = fold(from, a, step, inner.sizes[0], value);
        else walk(inner, [a], ([at], length) => (value = fold(from, at, step, length, value)));
        to[o] = kind === "mean" ? value / total : value;
      }
    });
  };
};

/** @param {Call} call @returns {Run} */
export function cumsum({ outs: [out], operands: [x], attributes: { axis } }) {
  const size = x.shape[axis], inner = countIn(x.shape.slice(axis + 1)), outer = countIn(x.shape.slice(0, axis));
  return () => {
    const to = out.store.data, from = x.store.data;
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let total = 0;
        for (let k = 0, at = o * size * inner + i; k < size; k++, at += inner) to[out.offset + at] = total += from[x.offset + at];
      }
    }
  };
}

/** @param {Call} call @returns {Run} */
export function fill({ outs: [out], attributes: { value } }) {
  return () => out.store.data.fill(value, out.offset, out.offset + countIn(out.shape));
}

/** @param {Call} call @returns {Run} */
export function arange({ outs: [out] }) {
  return () => {
    for (let i = 0; i < out.shape[0]; i++) out.store.data[out.offset + i] = i;
  };
}

/** @param {Call} call @returns {Run} */
export function count({ outs: [out], attributes: { size } }) {
  return () => {
    out.store.data[out.offset] = size;
  };
}

/**
 * Numbers drawn from a counter, the i-th of a shape from word i; counted from those of the rows before, so that a
 * mini-batch run in groups draws the masks of the whole.
 * @param {(attributes: Record<string, any>) => (word: number) => number} of
 * @returns {(call: Call) => Run}
 */
const drawn = (of) => ({ outs: [out], attributes, n }) => {
  const count = countIn(out.shape), numberOf = of(attributes);
  return ({ seed, first }) => {
    const [key] = tokenKeys(seed, 1, attributes.stream);
    const to = out.store.data;
    let place = Math.imul(Number(BigInt.asUintN(32, BigInt(first) * BigInt(Math.floor(count / n)))), COLUMN);
    for (let i = 0; i < count; i++) {
      to[out.offset + i] = numberOf(mix(key ^ place));
      place = (place + COLUMN) | 0;
    }
  };
};

/** 0 with probability p, else 1 / (1 - p). */
export const dropoutMask = drawn(({ p }) => {
  const limit = Math.floor(p * 2 ** 32), scale = 1 / (1 - p);
  return (word) => (word >= limit ? scale : 0);
});

/** word / 2^32. */
export const uniform = drawn(() => (word) => word / 2 ** 32);
