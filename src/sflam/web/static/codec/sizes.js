/** Bits and bytes that cross the cut, from plain numbers: those of `sflam.sizes`. */

export const HEADER_BYTES = 592;
export const COUNT_LIMIT = 10 ** 9;
export const BODY_LIMIT = 10 ** 10;
export const MIN_BITS = 1;
export const MAX_BITS = 16;
export const IDENTITY = "identity";
export const TOPK = "topk";
export const FLOAT_BITS = 32;
/** Adapter values that share an offset and a step where their change travels in few bits. */
export const ADAPTER_GROUP = 128;

/** @param {number} dim @returns {number} bits of an index below `dim` */
export function indexBits(dim) {
  return Math.max(1, 32 - Math.clz32(dim - 1));
}

/** @param {number} dim @param {number} bits @returns {number} most values of a token that `topk` keeps */
export function topkKept(dim, bits) {
  return Math.min(dim, Math.max(1, Math.floor((dim * bits) / (indexBits(dim) + 8))));
}

/** @param {string} scheme @returns {boolean} whether a message's size depends on its values */
export function isVariable(scheme) {
  return scheme === TOPK;
}

/**
 * @param {number} tokens
 * @param {number} dim
 * @param {number} bits
 * @param {string} scheme
 * @returns {number} bytes of the packed codes, or the most there can be
 */
export function codesBytes(tokens, dim, bits, scheme) {
  if (scheme === TOPK) {
    const kept = tokens * topkKept(dim, bits);
    return Math.ceil((kept * indexBits(dim)) / 8) + kept;
  }
  return Math.ceil((tokens * dim * bits) / 8);
}

/** @param {number} values @returns {number} bytes of a body of so many adapter weights, float64 and grids at most */
export function mostAdapterBytes(values) {
  return HEADER_BYTES + 8 * values + 4 * Math.ceil(values / ADAPTER_GROUP);
}
