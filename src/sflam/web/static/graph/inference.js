/**
 * What an operation makes, from what it is given: one function per form of operation, as `sflam.graph.inference`.
 *
 * Each takes the operands in order, values or numbers, and the attributes, and returns the values made.
 */

import { GraphError } from "../errors.js";
import { Real } from "../json.js";
import { ONE, Size, ZERO, countOf, sameShape, written } from "./size.js";

/** @typedef {{shape: Size[], numbers: "float" | "int" | "bool"}} Value */
/** @typedef {Value | number | boolean | Real} Given */
/** @typedef {(given: Given[], attributes: Record<string, any>) => Value[]} Infer */

export const MOST_AXES = 8;
const FLOAT = "float", INT = "int", BOOL = "bool";

const make = (shape, numbers = FLOAT) => ({ shape, numbers });
const isValue = (given) => typeof given === "object" && !(given instanceof Real);

/** @param {Size[][]} shapes @returns {Size[]} NumPy's common shape */
export function broadcast(shapes) {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) => {
    const own = shapes.map((shape) => shape[axis - rank + shape.length]).filter((size) => size && !size.isOne);
    if (new Set(own.map((size) => size.key)).size > 1) {
      throw new GraphError(`the shapes ${shapes.map(written).join(", ")} do not go together`);
    }
    return own[0] ?? ONE;
  });
}

/** @param {string | null} kind of the result; null is that of the operands @param {string[]} of @returns {Infer} */
export const elementwise = (kind, of = [FLOAT]) => (given) => {
  const shape = together(given), numbers = common(given, of);
  return [make(shape, kind ?? numbers)];
};

/** @type {Infer} */
export const where = (given) => {
  expect(given[0], BOOL);
  return [make(together(given), common(given.slice(1), [FLOAT, INT, BOOL], true))];
};

/** @type {Infer} */
export const along = (given, { axis }) => {
  const first = expect(given[0]);
  axisOf(axis, first.shape);
  for (const other of given.slice(1)) expectShape(other, first.shape);
  return [first];
};

/** @type {Infer} */
export const cast = (given, { to }) => [make(value(given[0]).shape, to)];

/** @type {Infer} */
export const layerNorm = (given) => {
  const x = expectAxes(expect(given[0]), 1);
  for (const other of given.slice(1)) expectShape(other, x.shape.slice(-1));
  const side = make([...x.shape.slice(0, -1), ONE]);
  return [x, side, side];
};

/** @type {Infer} */
export const layerNormGrad = (given) => {
  const grad = expectAxes(expect(given[0]), 1);
  const side = [...grad.shape.slice(0, -1), ONE];
  [grad.shape, side, side, grad.shape.slice(-1)].forEach((shape, at) => expectShape(given[at + 1], shape));
  return [grad];
};

/** @param {string[]} kinds @returns {Infer} */
export const reduce = (kinds) => (given, { axes, keep }) => {
  const x = expect(given[0], ...kinds);
  const named = new Set(axes.map((axis) => axisOf(axis, x.shape)));
  if (named.size !== axes.length || !named.size) {
    throw new GraphError(`axes [${axes}] of ${written(x.shape)}; name each once`);
  }
  const shape = x.shape.map((size, axis) => (named.has(axis) ? ONE : size));
  return [make(keep ? shape : shape.filter((_, axis) => !named.has(axis)), x.numbers)];
};

/** @type {Infer} */
export const cumulative = (given, { axis }) => {
  const x = expect(given[0], FLOAT, INT);
  axisOf(axis, x.shape);
  return [x];
};

/** @type {Infer} */
export const matmul = (given) => {
  const [x, y] = given.map((each) => expectAxes(expect(each), 2));
  if (x.shape.at(-1).key !== y.shape.at(-2).key) {
    throw new GraphError(`${written(x.shape)} cannot be multiplied by ${written(y.shape)}`);
  }
  return [make([...broadcast([x.shape.slice(0, -2), y.shape.slice(0, -2)]), x.shape.at(-2), y.shape.at(-1)])];
};

/** @type {Infer} */
export const addmm = (given) => {
  const [product] = matmul(given.slice(1), {});
  expectShape(given[0], product.shape);
  return [product];
};

/** @type {Infer} */
export const linear = (given, { transposed }) => {
  const x = expectAxes(expect(given[0]), 1), w = expect(given[1]);
  if (w.shape.length !== 2) throw new GraphError(`a matrix has the shape ${written(w.shape)}; it must have two axes`);
  const [outer, inner] = transposed ? [w.shape[1], w.shape[0]] : w.shape;
  if (x.shape.at(-1).key !== inner.key) {
    throw new GraphError(`${written(x.shape)} does not fit a matrix of ${written(w.shape)}`);
  }
  if (given.length > 2) expectShape(given[2], [outer]);
  return [make([...x.shape.slice(0, -1), outer])];
};

/** @type {Infer} */
export const reshape = (given, { shape }) => {
  const x = value(given[0]);
  if (countOf(x.shape).key !== countOf(shape).key) {
    throw new GraphError(`${written(x.shape)} holds ${countOf(x.shape)} numbers, ${written(shape)} does not`);
  }
  return [make(shape, x.numbers)];
};

/** @type {Infer} */
export const transpose = (given, { axes }) => {
  const x = value(given[0]);
  const sorted = [...axes].sort((a, b) => a - b);
  if (axes.length !== x.shape.length || sorted.some((axis, at) => axis !== at)) {
    throw new GraphError(`axes [${axes}] of ${written(x.shape)}; name each once, from 0`);
  }
  return [make(axes.map((axis) => x.shape[axis]), x.numbers)];
};

/** @type {Infer} */
export const expand = (given, { shape }) => {
  const x = value(given[0]);
  if (shape.length < x.shape.length || !sameShape(broadcast([x.shape, shape]), shape)) {
    throw new GraphError(`${written(x.shape)} cannot be expanded to ${written(shape)}`);
  }
  return [make(shape, x.numbers)];
};

/** @type {Infer} */
export const slice = (given, { axis, start, stop, step }) => {
  const x = value(given[0]);
  axisOf(axis, x.shape);
  let length = stop.minus(start);
  if (step !== 1) {
    if (step < 1 || length.constant === null) {
      throw new GraphError(`a slice from ${start} to ${stop} by ${step}; a step above 1 is between numbers only`);
    }
    length = new Size([Math.ceil(length.constant / step)]);
  }
  expectWithin(start, stop, x.shape[axis]);
  return [make(x.shape.with(axis, length), x.numbers)];
};

/** @type {Infer} */
export const concat = (given, { axis }) => {
  const first = value(given[0]);
  axisOf(axis, first.shape);
  let total = ZERO;
  for (const other of given) {
    const x = expect(other, first.numbers);
    if (x.shape.length !== first.shape.length || !sameShape(x.shape.with(axis, ONE), first.shape.with(axis, ONE))) {
      throw new GraphError(`${written(first.shape)} and ${written(x.shape)} do not stand side by side`);
    }
    total = total.plus(x.shape[axis]);
  }
  return [make(first.shape.with(axis, total), first.numbers)];
};

/** @type {Infer} */
export const pad = (given, { axis, before, after }) => {
  const x = value(given[0]);
  axisOf(axis, x.shape);
  for (const side of [before, after]) expectWithin(ZERO, side, null);
  return [make(x.shape.with(axis, x.shape[axis].plus(before).plus(after)), x.numbers)];
};

/** @type {Infer} */
export const take = (given) => {
  const table = expectAxes(value(given[0]), 1), ids = expect(given[1], INT);
  return [make([...ids.shape, ...table.shape.slice(1)], table.numbers)];
};

/** @type {Infer} */
export const takeAlong = (given, { axis }) => {
  const x = value(given[0]), ids = expect(given[1], INT);
  axisOf(axis, x.shape);
  if (ids.shape.length !== x.shape.length || !sameShape(ids.shape.with(axis, ONE), x.shape.with(axis, ONE))) {
    throw new GraphError(`ids of ${written(ids.shape)} do not fit ${written(x.shape)} but for axis ${axis}`);
  }
  return [make(ids.shape, x.numbers)];
};

/** @type {Infer} */
export const oneHot = (given, { size }) => [make([...expect(given[0], INT).shape, size])];

/** @type {Infer} */
export const fill = (_, { shape, numbers }) => [make(shape, numbers)];

/** @type {Infer} */
export const arange = (_, { stop }) => [make([stop], INT)];

/** @type {Infer} */
export const count = (_, { numbers }) => [make([], numbers)];

/** @type {Infer} */
export const drawn = (_, { shape, p = 0 }) => {
  if (!(p >= 0 && p < 1)) throw new GraphError(`a dropout of ${p}; it is at least 0 and below 1`);
  return [make(shape)];
};

/** @param {Given} given @returns {Value} */
function value(given) {
  if (!isValue(given)) throw new GraphError(`the number ${given?.value ?? given} stands where a value must`);
  return /** @type {Value} */ (given);
}

/** @param {Given} given @param {...string} kinds @returns {Value} */
function expect(given, ...kinds) {
  const found = value(given), of = kinds.length ? kinds : [FLOAT];
  if (!of.includes(found.numbers)) throw new GraphError(`a value of ${found.numbers} stands where ${of.join(" or ")} must`);
  return found;
}

/** @param {number} axis @param {Size[]} shape */
function axisOf(axis, shape) {
  if (!(axis >= 0 && axis < shape.length)) {
    throw new GraphError(`axis ${axis} of ${written(shape)}; it must be in 0..${shape.length - 1}`);
  }
  return axis;
}

const together = (given) => broadcast(given.map((each) => (isValue(each) ? each.shape : [])));

/** The one kind of the values among `given`; with `loose` there may be none. */
function common(given, kinds, loose = false) {
  const found = new Set(given.filter(isValue).map((each) => each.numbers));
  const numbers = given.filter((each) => !isValue(each));
  const real = numbers.some((each) => each instanceof Real);
  if (!found.size && loose) found.add(real ? FLOAT : INT);
  const [kind] = found;
  if (found.size !== 1 || !kinds.includes(kind)) {
    throw new GraphError(`values of ${[...found].sort().join(" and ") || "no kind"} where ${kinds.join(" or ")} must stand`);
  }
  if (kind !== FLOAT && real) throw new GraphError(`a number that is not whole stands beside values of ${kind}`);
  return kind;
}

function expectShape(given, shape) {
  const found = expect(given);
  if (!sameShape(found.shape, shape)) {
    throw new GraphError(`a value of ${written(found.shape)} stands where ${written(shape)} must`);
  }
}

function expectAxes(given, least) {
  if (given.shape.length < least) throw new GraphError(`${written(given.shape)} has fewer than ${least} axes`);
  return given;
}

/** Refuse bounds that are numbers and out of order; those that hang on n are checked when it is known. */
function expectWithin(start, stop, size) {
  for (const [low, high] of [[ZERO, start], [start, stop], ...(size ? [[stop, size]] : [])]) {
    const between = high.minus(low).constant;
    if (between !== null && between < 0) {
      throw new GraphError(`from ${start} to ${stop}${size ? ` of ${size}` : ""} is out of order`);
    }
  }
}
