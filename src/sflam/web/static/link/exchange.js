/** The device's end of what crosses the cut: tokens [n d] to bodies and back; that of `sflam.link.exchange`. */

import { encodeChange } from "../codec/change.js";
import { HEAD_UP, UP, noiseSeed } from "../codec/dither.js";
import { decodeTokens, quantizer } from "../codec/quantizers.js";
import { FLOAT_BITS, IDENTITY } from "../codec/sizes.js";
import { WireError } from "../errors.js";

/** @typedef {import("../codec/packed.js").Packed} Packed */

/** How one device's tokens become messages and messages tokens. */
export class TokenExchange {
  /**
   * @param {string} scheme name of the quantizer
   * @param {bigint} seed of the run
   * @param {number} device its number
   * @param {number} dim d
   * @param {[number, number]} bits per value up and down; `identity` ignores them
   * @param {number} [bitsAdapters] per adapter value up; 32 sends them as they are
   */
  constructor(scheme, seed, device, dim, bits, bitsAdapters = FLOAT_BITS) {
    Object.assign(this, { scheme, seed, device, dim, bits, bitsAdapters });
    this.quantizer = quantizer(scheme);
    /** @type {Map<number, Float32Array>} leg -> what a quantizer with memory left out so far */
    this.left = new Map();
  }

  /** @returns {boolean} whether the change of the adapters since the round began goes up, instead of the adapters */
  get changes() {
    return this.bitsAdapters < FLOAT_BITS;
  }

  /**
   * @param {number} round
   * @param {number} samples trained on
   * @param {Float32Array} values [P] the adapters now
   * @param {Float32Array} start [P] those that came when the round began
   * @param {Uint16Array} [grid] [G 2] that came with them
   * @returns {import("../codec/bodies.js").Message} what a round trained
   */
  trained(round, samples, values, start, grid = new Uint16Array(0)) {
    const { device, bitsAdapters, seed } = this;
    if (!this.changes) return { kind: "adapter", round, device, samples, values };
    const tokens = encodeChange(values, start, bitsAdapters, seed, round, device, grid);
    return { kind: "change", round, device, samples, tokens };
  }

  /** @returns {Map<number, Float32Array>} a copy of what was left out */
  memory() {
    return new Map(Array.from(this.left, ([leg, left]) => [leg, left.slice()]));
  }

  /** @param {Map<number, Float32Array>} memory what {@link memory} returned; an empty one forgets all */
  remember(memory) {
    this.left = new Map(Array.from(memory, ([leg, left]) => [leg, left.slice()]));
  }

  /**
   * @param {Float32Array} x [n d]
   * @param {number} round
   * @param {number} step
   * @param {number} leg UP or HEAD_UP
   * @returns {Packed}
   */
  outgoing(x, round, step, leg) {
    const seed = noiseSeed(this.seed, round, step, this.device, leg);
    const bits = this.#bits(leg);
    if (leg !== HEAD_UP || !this.quantizer.encodeAfter) return this.quantizer.encode(x, this.dim, bits, seed);
    const { packed, left } = this.quantizer.encodeAfter(this.left.get(leg), x, this.dim, bits, seed);
    this.left.set(leg, left);
    return packed;
  }

  /**
   * @param {Packed} packed of an answer
   * @param {number} leg
   * @param {number} tokens n
   * @returns {Float32Array} [n d], the caller's own; WireError where they are not as agreed
   */
  incoming(packed, leg, tokens) {
    const found = [packed.scheme, packed.bits, packed.tokens, packed.dim].join(", ");
    const agreed = [this.scheme, this.#bits(leg), tokens, this.dim].join(", ");
    if (found !== agreed) {
      throw new WireError(`tokens of scheme, bits, count, size (${found}) came; (${agreed}) were agreed`);
    }
    return decodeTokens(packed);
  }

  /** @param {number} leg @returns {number} bits of a value */
  #bits(leg) {
    if (this.scheme === IDENTITY) return 32;
    return this.bits[leg === UP || leg === HEAD_UP ? 0 : 1];
  }
}
