/** The largest values of every token, each as its index and a signed level; the bytes of `sflam.codec.topk`. */

import { NotFiniteError, WireError } from "../errors.js";
import { INFINITY, patternOf, widen } from "./grid.js";
import { tokenKeys } from "../noise.js";
import { draws } from "./dither.js";
import { pack, unpack } from "./packed.js";
import { indexBits, topkKept } from "./sizes.js";

const LEVELS = 127;
const MIDDLE = 128;
const { fround } = Math;

/** @param {number} scale bfloat16 pattern of a token's largest magnitude @returns {number} distance of its levels */
function stepOf(scale) {
  return fround(widen(scale) / LEVELS);
}

/** @param {Float32Array} row @param {number} token @returns {number} its largest magnitude as bfloat16, rounded up */
function scaleOf(row, token) {
  let largest = 0;
  for (const value of row) if (!(Math.abs(value) <= largest)) largest = Math.abs(value);
  const pattern = patternOf(largest);
  const rounded = (pattern >> 16) + ((pattern & 0xffff) > 0 ? 1 : 0);
  if (rounded >= INFINITY) {
    throw new NotFiniteError(
      `token ${token} reaches ${largest}; only finite values can be quantized: lower the learning rate, or clip`,
    );
  }
  return rounded;
}

/** @param {Float32Array} row @param {number} most @returns {number[]} columns of its largest magnitudes above 0, ascending */
function largest(row, most) {
  const columns = Array.from(row.keys()).filter((column) => row[column] !== 0);
  if (columns.length <= most) return columns;
  columns.sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]) || a - b); // of equal ones the first
  return columns.slice(0, most).sort((a, b) => a - b);
}

/**
 * @param {Float32Array} x [n d]
 * @param {number} dim d
 * @param {number} bits
 * @param {bigint} seed
 * @returns {{packed: import("./packed.js").Packed, missing: Float64Array}} the message, and the sum of what it leaves out
 */
function encoded(x, dim, bits, seed) {
  const tokens = x.length / dim;
  const keys = tokenKeys(seed, tokens);
  const most = topkKept(dim, bits);
  const side = new Uint16Array(2 * tokens);
  const dither = new Uint16Array(dim);
  const columns = [];
  const codes = [];
  const missing = new Float64Array(dim);
  const rows = Math.max(Math.floor(Math.floor((3 << 14) / dim) / 8), 1) * 8; // sums are made over the parts of Python's
  for (let first = 0; first < tokens; first += rows) {
    const there = new Float64Array(dim);
    const sent = new Float64Array(dim);
    for (let token = first; token < Math.min(first + rows, tokens); token++) {
      const row = x.subarray(token * dim, (token + 1) * dim);
      side[2 * token] = scaleOf(row, token);
      const step = stepOf(side[2 * token]);
      draws(keys[token], dither);
      for (const column of largest(row, most)) {
        const size = step > 0 ? Math.abs(row[column]) / step : 0;
        const level = Math.min(Math.floor(size + dither[column] / 65536), LEVELS);
        if (!level) continue;
        const code = MIDDLE + (row[column] < 0 ? -level : level);
        columns.push(column);
        codes.push(code);
        side[2 * token + 1]++;
        sent[column] += fround((code - MIDDLE) * step);
      }
      for (let column = 0; column < dim; column++) there[column] += row[column];
    }
    for (let column = 0; column < dim; column++) missing[column] = missing[column] + there[column] - sent[column];
  }
  const head = pack(Uint16Array.from(columns), indexBits(dim));
  const all = new Uint8Array(head.length + codes.length);
  all.set(head);
  all.set(codes, head.length);
  return { packed: { scheme: "topk", bits, tokens, dim, codes: all, side }, missing };
}

/**
 * @param {Float32Array} x [n d]
 * @param {number} dim d
 * @param {number} bits
 * @param {bigint} seed
 * @returns {import("./packed.js").Packed}
 */
export function encode(x, dim, bits, seed) {
  return encoded(x, dim, bits, seed).packed;
}

/**
 * @param {Float32Array | undefined} left what the last message left out of the mean token, [d]
 * @param {Float32Array} x [n d]
 * @param {number} dim d
 * @param {number} bits
 * @param {bigint} seed
 * @returns {{packed: import("./packed.js").Packed, left: Float32Array}} the message with it, and what is left out now
 */
export function encodeAfter(left, x, dim, bits, seed) {
  const whole = left ? x.map((value, i) => value + left[i % dim]) : x;
  const { packed, missing } = encoded(whole, dim, bits, seed);
  return { packed, left: Float32Array.from(missing, (value) => value / packed.tokens) };
}

/**
 * @param {import("./packed.js").Packed} packed
 * @returns {Float32Array} [n d], 0 where nothing was sent
 */
export function decode({ bits, tokens, dim, codes, side }) {
  const width = indexBits(dim);
  let total = 0;
  for (let token = 0; token < tokens; token++) total += side[2 * token + 1];
  const head = Math.ceil((total * width) / 8);
  if (codes.length !== head + total) {
    throw new WireError(`${codes.length} bytes of codes for ${total} values; ${head + total} were agreed`);
  }
  const columns = unpack(codes, width, total);
  const found = new Float32Array(tokens * dim);
  let at = 0;
  for (let token = 0; token < tokens; token++) {
    const count = side[2 * token + 1];
    const step = stepOf(side[2 * token]);
    let before = -1;
    let good = side[2 * token] < INFINITY && count <= topkKept(dim, bits);
    for (let i = 0; good && i < count; i++, at++) {
      const code = codes[head + at];
      good = columns[at] > before && columns[at] < dim && code !== 0 && code !== MIDDLE;
      before = columns[at];
      found[token * dim + before] = (code - MIDDLE) * step;
    }
    if (!good) {
      throw new WireError(`token ${token}: indices must ascend and be below ${dim}, levels differ from 0, magnitudes be finite`);
    }
  }
  return found;
}
