/**
 * Strict JSON of strangers: a name twice, NaN, or too deep a nesting is refused, and whole numbers stay apart.
 *
 * `JSON.parse` gives 1 for both `1` and `1.0`, and a graph means different kinds of number by them: here a number
 * written with a point or an exponent is a `Real`, any other a `number` (or, beyond 2^53, refused).
 */

import { GraphError } from "./errors.js";

const MOST_DEPTH = 64;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WORDS = new Map([["true", true], ["false", false], ["null", null]]);
const WORD = /true|false|null/y;

/** A number that was written as a fraction. */
export class Real {
  /** @param {number} value */
  constructor(value) {
    this.value = value;
  }

  toJSON() {
    return this.value;
  }
}

/**
 * Return what a text holds; objects are `Map`s, so that no name means anything to JavaScript.
 * @param {string} text
 * @param {string} [what] what to call it in an error
 * @returns {any}
 */
export function parse(text, what = "the file") {
  let at = 0;

  /** @param {string} reason @returns {never} */
  function refuse(reason) {
    throw new GraphError(`${what} is no JSON: ${reason} at character ${at}`);
  }

  /** @param {RegExp} pattern */
  function match(pattern) {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  }

  /** @param {string} character */
  function take(character) {
    match(SPACE);
    if (text[at] !== character) return false;
    at++;
    return true;
  }

  /** @param {number} depth @returns {any} */
  function value(depth) {
    if (depth > MOST_DEPTH) refuse(`more than ${MOST_DEPTH} levels`);
    match(SPACE);
    if (text[at] === '"') return string();
    if (take("[")) return list(depth);
    if (take("{")) return object(depth);
    const word = match(WORD);
    if (word) return WORDS.get(word[0]);
    const number = match(NUMBER);
    if (!number) refuse("nothing that JSON knows");
    const found = Number(number[0]);
    if (!Number.isFinite(found)) refuse("a number that is not finite");
    if (number[1] !== undefined || number[2] !== undefined) return new Real(found);
    if (!Number.isSafeInteger(found)) refuse("a whole number beyond 2^53");
    return found;
  }

  function string() {
    const found = match(STRING);
    if (!found) refuse("a text without its end");
    return JSON.parse(found[0]);
  }

  /** @param {number} depth */
  function list(depth) {
    const found = [];
    if (take("]")) return found;
    do found.push(value(depth + 1));
    while (take(","));
    if (!take("]")) refuse("a list without its end");
    return found;
  }

  /** @param {number} depth */
  function object(depth) {
    const found = new Map();
    if (take("}")) return found;
    do {
      match(SPACE);
      const name = text[at] === '"' ? string() : refuse("an object without a name");
      if (found.has(name)) refuse("one name twice in an object");
      if (!take(":")) refuse("a name without a value");
      found.set(name, value(depth + 1));
    } while (take(","));
    if (!take("}")) refuse("an object without its end");
    return found;
  }

  const found = value(0);
  match(SPACE);
  if (at !== text.length) refuse("more after its end");
  return found;
}
