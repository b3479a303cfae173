/** What a device trained in a round, in few bits: the change since the round began; `sflam.codec.adapter_change`. */

import { NotFiniteError, WireError } from "../errors.js";
import { tokenKeys } from "../noise.js";
import { ADAPTERS, draws, noiseSeed } from "./dither.js";
import { restore } from "./grid.js";
import { pack } from "./packed.js";
import { ADAPTER_GROUP } from "./sizes.js";
import * as uniform from "./uniform.js";

const INTEGRAL = 2 ** 52; // adding it to a double rounds to whole numbers, halves to even
const { fround } = Math;

/**
 * @param {Float32Array} values [P] what was trained
 * @param {Float32Array} start [P] what the round began with
 * @param {number} bits per value
 * @param {bigint} seed of the run
 * @param {number} round
 * @param {number} device its number
 * @param {Uint16Array} side [G 2] the grids of all devices; none, or zeros, where each group has its own
 * @returns {import("./packed.js").Packed} in groups, zeros behind the last value
 */
export function encodeChange(values, start, bits, seed, round, device, side) {
  const groups = new Float32Array(Math.ceil(values.length / ADAPTER_GROUP) * ADAPTER_GROUP);
  for (let i = 0; i < values.length; i++) groups[i] = values[i] - start[i];
  const noise = noiseSeed(seed, round, 0, device, ADAPTERS);
  return side.some(Boolean) ? onGrids(groups, side, bits, noise) : uniform.encode(groups, ADAPTER_GROUP, bits, noise);
}

/**
 * @param {Float32Array} groups [G 128]
 * @param {Uint16Array} side [G 2]
 * @param {number} bits
 * @param {bigint} seed
 * @returns {import("./packed.js").Packed} codes on these grids; what is beyond them becomes their end
 */
function onGrids(groups, side, bits, seed) {
  const tokens = groups.length / ADAPTER_GROUP;
  if (!groups.every(Number.isFinite)) {
    throw new NotFiniteError("the change of the adapters holds NaN or inf; lower the learning rate, or clip");
  }
  if (side.length !== 2 * tokens) throw new WireError(`grids of ${side.length / 2} groups came; ${tokens} were agreed`);
  const keys = tokenKeys(seed, tokens);
  const codes = new Uint16Array(groups.length);
  const dither = new Uint16Array(ADAPTER_GROUP);
  const most = (2 ** bits - 1) * 65536;
  for (let token = 0; token < tokens; token++) {
    const [offset, step] = restore(side[2 * token], side[2 * token + 1], bits, token);
    if (!(step > 0)) throw new WireError(`the grid of group ${token} has no step`);
    const unit = fround(step / 65536);
    draws(keys[token], dither);
    for (let i = 0; i < ADAPTER_GROUP; i++) {
      const at = token * ADAPTER_GROUP + i;
      const y = fround(fround(groups[at] - offset) / unit);
      const fixed = Math.min(Math.max(y + INTEGRAL - INTEGRAL, 0), most);
      codes[at] = (fixed + dither[i]) / 65536;
    }
  }
  return { scheme: "uniform", bits, tokens, dim: ADAPTER_GROUP, codes: pack(codes, bits), side: side.slice() };
}
