/** Tokens of a message that come and go in pieces. */

import { WireError } from "./errors.js";

/**
 * The n tokens of a message: all of them [n * d], or something that gives the next [count * d].
 * @typedef {Float32Array | {read: (count: number) => Float32Array}} Incoming
 */

/**
 * Return what gives the next tokens of a message.
 * @param {Incoming} tokens
 * @param {number} dim
 * @returns {(count: number) => Float32Array}
 */
export function reader(tokens, dim) {
  if (!(tokens instanceof Float32Array)) return (count) => tokens.read(count);
  let at = 0;
  return (count) => {
    const part = tokens.subarray(at, (at += count * dim));
    if (part.length !== count * dim) throw new WireError("fewer tokens came than were sent; the step is made again");
    return part;
  };
}

/** Return pieces as one array. @param {Float32Array[]} pieces */
export function joined(pieces) {
  const out = new Float32Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
