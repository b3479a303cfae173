/**
 * Operations whose every number hangs on the numbers at its own place alone.
 *
 * `out` may be an operand: a place is read before it is written. Kinds that every block runs have loops of their own,
 * since engines do not inline a function that many loops share.
 */

import { erf, gelu, geluGrad, sigmoid, silu, siluGrad, tanh } from "./activations.js";

/**
 * Writes `n` numbers from `oi` on; each operand has its first place and its step.
 * @typedef {(o: any, oi: number, n: number, a: any, ai: number, as: number, b: any, bi: number, bs: number,
 *   c: any, ci: number, cs: number) => void} Cell
 */

/** @type {Cell} */
const add = (o, oi, n, a, ai, as, b, bi, bs) => {
  if (as === 1 && bs === 1) for (let i = 0; i < n; i++) o[oi + i] = a[ai + i] + b[bi + i];
  else for (let i = 0; i < n; i++, ai += as, bi += bs) o[oi + i] = a[ai] + b[bi];
};

/** @type {Cell} */
const sub = (o, oi, n, a, ai, as, b, bi, bs) => {
  for (let i = 0; i < n; i++, ai += as, bi += bs) o[oi + i] = a[ai] - b[bi];
};

/** @type {Cell} */
const mul = (o, oi, n, a, ai, as, b, bi, bs) => {
  if (as === 1 && bs === 1) for (let i = 0; i < n; i++) o[oi + i] = a[ai + i] * b[bi + i];
  else for (let i = 0; i < n; i++, ai += as, bi += bs) o[oi + i] = a[ai] * b[bi];
};

/** @type {Cell} */
const div = (o, oi, n, a, ai, as, b, bi, bs) => {
  for (let i = 0; i < n; i++, ai += as, bi += bs) o[oi + i] = a[ai] / b[bi];
};

/** @type {Cell} */
const where = (o, oi, n, a, ai, as, b, bi, bs, c, ci, cs) => {
  for (let i = 0; i < n; i++, ai += as, bi += bs, ci += cs) o[oi + i] = a[ai] ? b[bi] : c[ci];
};

/** @type {Cell} */
const hyperbolic = (o, oi, n, a, ai, as) => {
  for (let i = 0; i < n; i++, ai += as) o[oi + i] = tanh(a[ai]);
};

/** @type {Cell} */
const exp = (o, oi, n, a, ai, as) => {
  for (let i = 0; i < n; i++, ai += as) o[oi + i] = Math.exp(a[ai]);
};

/** @param {(x: number) => number} f @returns {Cell} */
const unary = (f) => (o, oi, n, a, ai, as) => {
  for (let i = 0; i < n; i++, ai += as) o[oi + i] = f(a[ai]);
};

/** @param {(x: number, y: number) => any} f @returns {Cell} */
const binary = (f) => (o, oi, n, a, ai, as, b, bi, bs) => {
  for (let i = 0; i < n; i++, ai += as, bi += bs) o[oi + i] = f(a[ai], b[bi]);
};

const floorDivide = (x, y) => Math.floor(x / y);
const wholeDivide = (x, y) => (y === 0 ? 0 : Math.floor(x / y)); // as NumPy's whole numbers
const remainder = (x, y) => {
  const rest = x % y;
  return rest !== 0 && rest < 0 !== y < 0 ? rest + y : rest;
};
const wholeRemainder = (x, y) => (y === 0 ? 0 : remainder(x, y));
const CASTS = { float: (x) => x, int: Math.trunc, bool: (x) => x !== 0 };

/**
 * Return how a kind is computed, or null for a kind that is no cell.
 * @param {string} kind
 * @param {Record<string, any>} attributes
 * @param {string} numbers of its first operand
 * @returns {Cell | null}
 */
export function cellOf(kind, attributes, numbers) {
  if (kind === "gelu") return APPROXIMATE[attributes.approximate].gelu;
  if (kind === "gelu_grad") return APPROXIMATE[attributes.approximate].grad;
  if (kind === "cast") return CAST[attributes.to];
  if (kind === "floor_divide" && numbers === "int") return WHOLE.floor_divide;
  if (kind === "remainder" && numbers === "int") return WHOLE.remainder;
  return CELLS.get(kind) ?? null;
}

const APPROXIMATE = {
  none: { gelu: gelu(false), grad: geluGrad(false) },
  tanh: { gelu: gelu(true), grad: geluGrad(true) },
};
const CAST = { float: unary(CASTS.float), int: unary(CASTS.int), bool: unary(CASTS.bool) };
const WHOLE = { floor_divide: binary(wholeDivide), remainder: binary(wholeRemainder) };

/** @type {Map<string, Cell>} */
const CELLS = new Map([
  ["add", add],
  ["sub", sub],
  ["mul", mul],
  ["div", div],
  ["floor_divide", binary(floorDivide)],
  ["remainder", binary(remainder)],
  ["pow", binary(Math.pow)],
  ["maximum", binary(Math.max)],
  ["minimum", binary(Math.min)],
  ["neg", unary((x) => -x)],
  ["abs", unary(Math.abs)],
  ["exp", exp],
  ["log", unary(Math.log)],
  ["expm1", unary(Math.expm1)],
  ["log1p", unary(Math.log1p)],
  ["sqrt", unary(Math.sqrt)],
  ["rsqrt", unary((x) => 1 / Math.sqrt(x))],
  ["reciprocal", unary((x) => 1 / x)],
  ["tanh", hyperbolic],
  ["sigmoid", unary(sigmoid)],
  ["erf", unary(erf)],
  ["sin", unary(Math.sin)],
  ["cos", unary(Math.cos)],
  ["floor", unary(Math.floor)],
  ["relu", unary((x) => (x < 0 ? 0 : x))],
  ["silu", silu],
  ["silu_grad", siluGrad],
  ["eq", binary((x, y) => x === y)],
  ["ne", binary((x, y) => x !== y)],
  ["lt", binary((x, y) => x < y)],
  ["le", binary((x, y) => x <= y)],
  ["gt", binary((x, y) => x > y)],
  ["ge", binary((x, y) => x >= y)],
  ["and", binary((x, y) => x & y)],
  ["or", binary((x, y) => x | y)],
  ["not", unary((x) => !x)],
  ["where", where],
]);
