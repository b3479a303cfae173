/** Encoded tokens, as they travel. */

import { WireError } from "../errors.js";
import { IDENTITY, MAX_BITS, MIN_BITS, codesBytes, isVariable } from "./sizes.js";

/**
 * @typedef {object} Packed
 * @property {string} scheme that wrote them
 * @property {number} bits per value: 1..16, or 32 of `identity`
 * @property {number} tokens n
 * @property {number} dim d, values of a token
 * @property {Uint8Array} codes packed, the first in the lowest bits of the first byte
 * @property {Uint16Array} side [2 n], bfloat16 patterns; empty for `identity`
 */

/**
 * @param {Packed} packed
 * @returns {Packed} it, once its arrays have the sizes that its numbers need
 */
export function expectSizes(packed) {
  const { scheme, bits, tokens, dim, codes, side } = packed;
  const raw = scheme === IDENTITY;
  if (raw ? bits !== 32 : !(bits >= MIN_BITS && bits <= MAX_BITS)) {
    throw new WireError(`${scheme} tokens of ${bits} bits; here there are ${raw ? "32" : `${MIN_BITS}..${MAX_BITS}`}`);
  }
  const most = codesBytes(tokens, dim, bits, scheme);
  if (dim < 1 || (isVariable(scheme) ? codes.length > most : codes.length !== most)) {
    throw new WireError(`${codes.length} bytes of codes for ${tokens} x ${dim} values of ${bits} bits; ${most} are needed`);
  }
  if (side.length !== (raw ? 0 : 2 * tokens)) {
    throw new WireError(`${side.length} words of side information for ${tokens} tokens`);
  }
  return packed;
}

/** @param {Uint16Array} codes @param {number} bits 1..16 @returns {Uint8Array} code i in bits [i b, (i + 1) b) */
export function pack(codes, bits) {
  const found = new Uint8Array(Math.ceil((codes.length * bits) / 8));
  let held = 0;
  let count = 0;
  let at = 0;
  for (let i = 0; i < codes.length; i++) {
    held |= codes[i] << count;
    count += bits;
    while (count >= 8) {
      found[at++] = held;
      held >>>= 8;
      count -= 8;
    }
  }
  if (count) found[at] = held;
  return found;
}

/** @param {Uint8Array} packed @param {number} bits @param {number} count @returns {Uint16Array} undoes {@link pack} */
export function unpack(packed, bits, count) {
  const found = new Uint16Array(count);
  const mask = (1 << bits) - 1;
  let held = 0;
  let there = 0;
  let at = 0;
  for (let i = 0; i < count; i++) {
    while (there < bits) {
      held |= packed[at++] << there;
      there += 8;
    }
    found[i] = held & mask;
    held >>>= bits;
    there -= bits;
  }
  return found;
}
