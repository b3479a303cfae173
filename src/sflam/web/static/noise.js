/**
 * Counter-based draws: words that any machine computes from (seed, stream, place) alone; see `sflam.codec.noise`.
 *
 * All arithmetic is modulo 2^32, so that the numbers are Python's, bit by bit.
 */

import { ConfigError } from "./errors.js";

const MIX_1 = 0x7feb352d;
const MIX_2 = 0x846ca68b;

/** 2^32 / golden ratio: neighbouring places land far apart. */
export const COLUMN = 0x9e3779b9;

/**
 * Return the hash of a word (lowbias32, Wellons 2018).
 * @param {number} x
 * @returns {number} 0..2^32 - 1
 */
export function mix(x) {
  x = Math.imul(x ^ (x >>> 16), MIX_1);
  x = Math.imul(x ^ (x >>> 15), MIX_2);
  return (x ^ (x >>> 16)) >>> 0;
}

/**
 * Return the keys of the tokens, or streams, from number `first` on.
 * @param {bigint | number} seed in 0..2^64 - 1
 * @param {number} tokens how many
 * @param {number} [first]
 * @returns {Uint32Array} [tokens]
 */
export function tokenKeys(seed, tokens, first = 0) {
  const whole = BigInt(seed);
  if (whole < 0n || whole >> 64n) throw new ConfigError(`seed ${seed} is out of range; it must be in 0..2^64 - 1`);
  const mixed = splitmix64(whole);
  const low = Number(mixed & 0xffffffffn), high = Number(mixed >> 32n);
  return Uint32Array.from({ length: tokens }, (_, token) => mix(mix((first + token) ^ low) ^ high));
}

/** @param {bigint} seed */
function splitmix64(seed) {
  let z = BigInt.asUintN(64, seed + 0x9e3779b97f4a7c15n);
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}
