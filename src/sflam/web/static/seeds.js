/** One seed of the run; every random draw names its stream. The numbers are those of `sflam.seeds`. */

import { sha256 } from "./sha256.js";

/**
 * Return a 63-bit seed for the named stream and position, the same on every machine (SHA-256).
 * @param {bigint | number} seed
 * @param {string} stream
 * @param {...(number | bigint)} indices
 * @returns {bigint}
 */
export function derive(seed, stream, ...indices) {
  const text = [seed, stream, ...indices].map(String).join(":");
  const hash = sha256(new TextEncoder().encode(text));
  return new DataView(hash.buffer).getBigUint64(0, true) >> 1n;
}
