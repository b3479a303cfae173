/** The dither of stochastic rounding, 16 bits a value, and its seeds: those of `sflam.codec.noise` and `legs`. */

import { COLUMN, mix } from "../noise.js";
import { derive } from "../seeds.js";

/** Legs of a step; with labels at home, activations and their gradient travel a second time in between. */
export const UP = 0;
export const DOWN = 1;
export const HEAD_DOWN = 2;
export const HEAD_UP = 3;
/** What a round trained, on the way up. */
export const ADAPTERS = 4;

/**
 * @param {number} key of a token
 * @param {Uint16Array} out takes its draws
 */
export function draws(key, out) {
  for (let column = 0; 2 * column < out.length; column++) {
    const word = mix(key ^ Math.imul(column, COLUMN));
    out[2 * column] = word;
    if (2 * column + 1 < out.length) out[2 * column + 1] = word >>> 16;
  }
}

/**
 * @param {bigint | number} seed of the run
 * @param {number} round
 * @param {number} step
 * @param {number} device
 * @param {number} leg of the step
 * @returns {bigint} the seed of the rounding noise of one exchange
 */
export function noiseSeed(seed, round, step, device, leg) {
  return derive(seed, "quantizer", round, step, device, leg);
}
