/** The grid of a token: 2^bits levels, offset + code * step, both bfloat16; that of `sflam.codec.grid`. */

import { NotFiniteError, WireError } from "../errors.js";

export const LARGEST = 3.4028234663852886e38; // of float32
export const INFINITY = 0x7f80; // bfloat16 pattern

const FLOAT = new Float32Array(1);
const WORD = new Int32Array(FLOAT.buffer);

/** @param {number} pattern of a bfloat16 @returns {number} its value */
export function widen(pattern) {
  WORD[0] = pattern << 16;
  return FLOAT[0];
}

/** @param {number} value @returns {number} its float32 pattern, signed */
export function patternOf(value) {
  FLOAT[0] = value;
  return WORD[0];
}

/**
 * @param {number} low least value of the token
 * @param {number} high greatest
 * @param {number} bits
 * @param {number} token its number, for messages
 * @returns {[number, number]} the patterns of offset and step of the tightest grid
 */
export function fit(low, high, bits, token) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) {
    throw new NotFiniteError(
      `token ${token} ranges from ${low} to ${high}; only finite values can be quantized: lower the learning rate, or clip`,
    );
  }
  const levels = 2 ** bits - 1;
  const raw = patternOf(low + 0); // one pattern for both zeros
  const offsetBits = (raw + (raw < 0 ? 0xffff : 0)) >> 16;
  const offset = widen(offsetBits);
  let stepBits = patternOf((high + 0 - offset) / levels) >> 16;
  if (offset + levels * widen(stepBits) < high) stepBits++; // up, where it is too small
  expectRange(offset, widen(stepBits), levels, token);
  return [offsetBits & 0xffff, stepBits & 0xffff];
}

/**
 * @param {number} offsetBits
 * @param {number} stepBits
 * @param {number} bits
 * @param {number} token its number, for messages
 * @returns {[number, number]} offset and step; throws where no encoder writes these patterns
 */
export function restore(offsetBits, stepBits, bits, token) {
  if ((offsetBits & 0x7fff) >= INFINITY || stepBits >= INFINITY) {
    throw new WireError(
      `token ${token} has offset pattern ${offsetBits} and step pattern ${stepBits}; both must be finite, the step not negative`,
    );
  }
  const offset = widen(offsetBits);
  const step = widen(stepBits);
  expectRange(offset, step, 2 ** bits - 1, token);
  return [offset, step];
}

/** @param {number} offset @param {number} step @param {number} levels @param {number} token */
function expectRange(offset, step, levels, token) {
  if (!(Math.max(offset, 0) + levels * step <= LARGEST && offset >= -LARGEST)) {
    throw new NotFiniteError(
      `token ${token} needs ${levels} steps of ${step} from ${offset} on; float32 ends at ${LARGEST}: scale the values down`,
    );
  }
}
