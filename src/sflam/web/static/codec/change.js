/** What a device trained in a round, in few bits: the change since the round began; `sflam.codec.adapter_change`. */

import { ADAPTERS, noiseSeed } from "./dither.js";
import { ADAPTER_GROUP } from "./sizes.js";
import * as uniform from "./uniform.js";

/**
 * @param {Float32Array} values [P] what was trained
 * @param {Float32Array} start [P] what the round began with
 * @param {number} bits per value
 * @param {bigint} seed of the run
 * @param {number} round
 * @param {number} device its number
 * @returns {import("./packed.js").Packed} in groups, zeros behind the last value
 */
export function encodeChange(values, start, bits, seed, round, device) {
  const groups = new Float32Array(Math.ceil(values.length / ADAPTER_GROUP) * ADAPTER_GROUP);
  for (let i = 0; i < values.length; i++) groups[i] = values[i] - start[i];
  return uniform.encode(groups, ADAPTER_GROUP, bits, noiseSeed(seed, round, 0, device, ADAPTERS));
}
