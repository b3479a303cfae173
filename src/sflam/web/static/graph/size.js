/** Sizes of a graph: whole-number polynomials of the one symbol n; shapes are lists of them. */

import { GraphError, shown } from "../errors.js";

const MOST_DEGREE = 3;
const MOST_COEFFICIENT = 2 ** 40;

/** c0 + c1 n + c2 n^2 + ...; no zeros at the end. */
export class Size {
  /** @param {number[]} coefficients */
  constructor(coefficients) {
    const found = [...coefficients];
    while (found.length && !found[found.length - 1]) found.pop();
    if (!found.every(Number.isSafeInteger)) throw new GraphError("a size of the graphs is beyond 2^53");
    this.coefficients = found;
    /** Equal for equal sizes. */
    this.key = found.join(",");
  }

  /** The number it is for every n, or null. */
  get constant() {
    return this.coefficients.length > 1 ? null : (this.coefficients[0] ?? 0);
  }

  get isOne() {
    return this.key === "1";
  }

  /** @param {number} n @returns {number} its value; GraphError where that is negative */
  at(n) {
    const total = this.coefficients.reduceRight((sum, coefficient) => sum * n + coefficient, 0);
    if (total < 0) throw new GraphError(`the size ${this} is ${total} for n = ${n}; a size is 0 or more`);
    if (!Number.isSafeInteger(total)) throw new GraphError(`the size ${this} is beyond 2^53 for n = ${n}`);
    return total;
  }

  /** @param {Size} other */
  plus(other) {
    const a = this.coefficients, b = other.coefficients;
    return new Size(Array.from({ length: Math.max(a.length, b.length) }, (_, i) => (a[i] ?? 0) + (b[i] ?? 0)));
  }

  /** @param {Size} other */
  minus(other) {
    return this.plus(other.times(MINUS_ONE));
  }

  /** @param {Size} other */
  times(other) {
    const a = this.coefficients, b = other.coefficients;
    const out = new Array(Math.max(0, a.length + b.length - 1)).fill(0);
    a.forEach((x, i) => b.forEach((y, j) => (out[i + j] += x * y)));
    return new Size(out);
  }

  toString() {
    const power = (k) => (k > 1 ? `n^${k}` : k ? "n" : "");
    const term = (c, k) => (k && c === 1 ? power(k) : `${c} ${power(k)}`.trim());
    return this.coefficients.map((c, k) => (c ? term(c, k) : "")).filter(Boolean).join(" + ") || "0";
  }
}

const MINUS_ONE = new Size([-1]);
export const ZERO = new Size([]);
export const ONE = new Size([1]);
/** The symbol itself. */
export const N = new Size([0, 1]);

/** @param {any} found a number, or a list of coefficients @returns {Size} */
export function readSize(found) {
  const listed = Array.isArray(found) ? found : [found];
  const fits = (c) => Number.isInteger(c) && Math.abs(c) <= MOST_COEFFICIENT;
  if (listed.length < 1 || listed.length > MOST_DEGREE + 1 || !listed.every(fits)) {
    throw new GraphError(`a size is ${shown(found)}; it must be a whole number, or up to ${MOST_DEGREE + 1} ` +
      `coefficients, each at most ${MOST_COEFFICIENT}`);
  }
  return new Size(listed);
}

/** @param {...(Size | number)} sizes @returns {Size[]} */
export const shapeOf = (...sizes) => sizes.map((size) => (size instanceof Size ? size : new Size([size])));

/** @param {Size[]} shape @returns {Size} how many numbers a shape holds */
export const countOf = (shape) => shape.reduce((total, size) => total.times(size), ONE);

/** @param {Size[]} a @param {Size[]} b */
export const sameShape = (a, b) => a.length === b.length && a.every((size, axis) => size.key === b[axis].key);

/** @param {Size[]} shape @returns {string} */
export const written = (shape) => `[${shape.join(", ")}]`;

/** @param {Size[]} shape @param {number} n @returns {number[]} */
export const shapeAt = (shape, n) => shape.map((size) => size.at(n));
