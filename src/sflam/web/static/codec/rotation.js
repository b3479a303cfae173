/** A randomized Hadamard rotation before uniform quantization; the bytes of `sflam.codec.rotation`. */

import { NotFiniteError } from "../errors.js";
import { LARGEST, restore } from "./grid.js";
import { tokenKeys } from "../noise.js";
import * as uniform from "./uniform.js";

const SIGNS = 0x73666c616dn; // "sflam" in ASCII
const { fround } = Math;

/** @param {number} dim @returns {number} the largest power of two that divides it */
function blockOf(dim) {
  return dim & -dim;
}

/** @param {number} dim @returns {Float32Array} the diagonal of signs */
function signs(dim) {
  return Float32Array.from(tokenKeys(SIGNS, dim), (key) => 1 - 2 * (key >>> 31));
}

/** @param {Float32Array} values [d], overwritten by the sums and differences of its blocks */
function butterflies(values) {
  const block = blockOf(values.length);
  for (let distance = 1; distance < block; distance *= 2) {
    for (let start = 0; start < values.length; start += 2 * distance) {
      for (let i = start; i < start + distance; i++) {
        const a = values[i];
        const b = values[i + distance];
        values[i] = a + b;
        values[i + distance] = a - b;
      }
    }
  }
}

/**
 * @param {Float32Array} x [n d], turned in place
 * @param {number} dim d
 * @param {boolean} back whether to undo it
 * @returns {Float32Array} it
 */
function rotate(x, dim, back) {
  const block = blockOf(dim);
  if (block === 1) return x;
  const sign = signs(dim);
  const scale = fround(block ** -0.5);
  for (let start = 0; start < x.length; start += dim) {
    const row = x.subarray(start, start + dim);
    if (!back) for (let i = 0; i < dim; i++) row[i] *= sign[i];
    butterflies(row);
    for (let i = 0; i < dim; i++) row[i] *= back ? sign[i] * scale : scale;
  }
  return x;
}

/** @param {import("./packed.js").Packed} packed throws where rotating back might leave float32 */
function expectRoom({ bits, tokens, dim, side }) {
  const block = blockOf(dim);
  const limit = block > 1 ? LARGEST / 2 / block : Infinity;
  for (let token = 0; token < tokens; token++) {
    const [offset, step] = restore(side[2 * token], side[2 * token + 1], bits, token);
    const peak = Math.max(Math.abs(offset), Math.abs(offset + (2 ** bits - 1) * step));
    if (!(peak <= limit)) {
      throw new NotFiniteError(
        `token ${token}, rotated, reaches ${peak}; in blocks of ${block} float32 holds ${limit}: scale the values down`,
      );
    }
  }
}

/**
 * @param {Float32Array} x [n d]
 * @param {number} dim d
 * @param {number} bits
 * @param {bigint} seed
 * @returns {import("./packed.js").Packed}
 */
export function encode(x, dim, bits, seed) {
  const packed = { ...uniform.encode(rotate(x.slice(), dim, false), dim, bits, seed), scheme: "rotated" };
  expectRoom(packed);
  return packed;
}

/**
 * @param {import("./packed.js").Packed} packed
 * @returns {Float32Array} [n d]
 */
export function decode(packed) {
  expectRoom(packed);
  return rotate(uniform.decode(packed), packed.dim, true);
}
