/** Stochastic uniform quantization with an offset and a step per token; the bytes of `sflam.codec.uniform`. */

import { tokenKeys } from "../noise.js";
import { draws } from "./dither.js";
import { fit, restore, widen } from "./grid.js";
import { pack, unpack } from "./packed.js";

const INTEGRAL = 2 ** 52; // adding it to a double rounds to whole numbers, halves to even
const { fround } = Math;

/**
 * @param {Float32Array} x [n d]
 * @param {number} dim d
 * @param {number} bits
 * @param {bigint} seed
 * @returns {import("./packed.js").Packed}
 */
export function encode(x, dim, bits, seed) {
  const tokens = x.length / dim;
  const keys = tokenKeys(seed, tokens);
  const codes = new Uint16Array(tokens * dim);
  const side = new Uint16Array(2 * tokens);
  const dither = new Uint16Array(dim);
  for (let token = 0; token < tokens; token++) {
    const start = token * dim;
    let low = Infinity;
    let high = -Infinity;
    for (let i = start; i < start + dim; i++) {
      const value = x[i];
      if (value < low) low = value;
      if (value > high) high = value;
      if (value !== value) low = high = NaN;
    }
    const [offsetBits, stepBits] = fit(low, high, bits, token);
    side[2 * token] = offsetBits;
    side[2 * token + 1] = stepBits;
    const offset = widen(offsetBits);
    const step = widen(stepBits);
    const unit = step === 0 ? 1 : fround(step / 65536);
    draws(keys[token], dither);
    for (let i = 0; i < dim; i++) {
      const fixed = fround(fround(x[start + i] - offset) / unit) + INTEGRAL - INTEGRAL;
      codes[start + i] = (fixed + dither[i]) / 65536;
    }
  }
  return { scheme: "uniform", bits, tokens, dim, codes: pack(codes, bits), side };
}

/**
 * @param {import("./packed.js").Packed} packed
 * @returns {Float32Array} [n d]
 */
export function decode({ bits, tokens, dim, codes, side }) {
  const found = new Float32Array(tokens * dim);
  const levels = unpack(codes, bits, tokens * dim);
  for (let token = 0; token < tokens; token++) {
    const [offset, step] = restore(side[2 * token], side[2 * token + 1], bits, token);
    for (let i = token * dim; i < (token + 1) * dim; i++) found[i] = fround(levels[i] * step) + offset;
  }
  return found;
}
