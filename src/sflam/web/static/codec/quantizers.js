/** The quantizers that a page has, by the name in `quant.scheme`. */

import { NotFiniteError, WireError } from "../errors.js";
import { expectSizes } from "./packed.js";
import { IDENTITY } from "./sizes.js";
import * as rotation from "./rotation.js";
import * as topk from "./topk.js";
import * as uniform from "./uniform.js";

/** @param {Float32Array} x @param {number} dim throws at the first token that holds NaN or inf */
function expectFinite(x, dim) {
  const at = x.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    throw new NotFiniteError(
      `token ${Math.floor(at / dim)} holds NaN or inf; only finite values can cross the cut: lower the learning rate, or clip`,
    );
  }
}

const identity = {
  /** @param {Float32Array} x @param {number} dim @returns {import("./packed.js").Packed} */
  encode(x, dim) {
    expectFinite(x, dim);
    const codes = new Uint8Array(x.slice().buffer);
    return { scheme: IDENTITY, bits: 32, tokens: x.length / dim, dim, codes, side: new Uint16Array(0) };
  },
  /** @param {import("./packed.js").Packed} packed @returns {Float32Array} */
  decode({ codes, dim }) {
    const found = new Float32Array(codes.slice().buffer);
    expectFinite(found, dim);
    return found;
  },
};

/** @type {Record<string, {encode: Function, decode: Function, encodeAfter?: Function}>} */
export const QUANTIZERS = { uniform, rotated: rotation, topk, identity };

/** @param {string} scheme @returns {{encode: Function, decode: Function, encodeAfter?: Function}} */
export function quantizer(scheme) {
  if (!Object.hasOwn(QUANTIZERS, scheme)) {
    throw new WireError(`unknown scheme ${scheme.slice(0, 40)}; known are ${Object.keys(QUANTIZERS).join(", ")}`);
  }
  return QUANTIZERS[scheme];
}

/** @param {import("./packed.js").Packed} packed @returns {Float32Array} [n d], the caller's own */
export function decodeTokens(packed) {
  return quantizer(packed.scheme).decode(expectSizes(packed));
}
