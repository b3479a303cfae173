/** Messages to bytes and back: the safetensors layout with a header of fixed size; those of `sflam.codec.bodies`. */

import { NotFiniteError, WireError } from "../errors.js";
import { expectSizes } from "./packed.js";
import { ADAPTER_GROUP, BODY_LIMIT, COUNT_LIMIT, HEADER_BYTES, IDENTITY, codesBytes, isVariable } from "./sizes.js";

/**
 * @typedef {object} Message
 * @property {"step" | "gradient" | "tokens" | "adapter" | "change"} kind
 * @property {number} round
 * @property {number} device
 * @property {number} [step] of all but adapters
 * @property {number} [rows] of a step
 * @property {Int32Array | null} [lengths] of a step
 * @property {Int32Array | null} [labels] of a step
 * @property {number} [loss] of a gradient
 * @property {import("./packed.js").Packed | null} [tokens] of all but adapters
 * @property {number} [samples] of adapters, and of their change
 * @property {Float32Array} [values] of adapters
 * @property {Uint16Array} [grid] that came with adapters, of the change that goes up
 */

/** @type {Record<string, string[]>} */
const NUMBERS = {
  step: ["round", "step", "device", "rows"],
  gradient: ["round", "step", "device"],
  tokens: ["round", "step", "device"],
  adapter: ["round", "device", "samples"],
  change: ["round", "device", "samples"],
};
const TOKENS = ["scheme", "bits", "tokens", "dim"];
/** @type {Record<string, [number, any]>} */
const TYPES = { F32: [4, Float32Array], I32: [4, Int32Array], BF16: [2, Uint16Array], U8: [1, Uint8Array] };

/** @typedef {{name: string, tag: string, shape: number[]}} Spec */

/** @param {Spec[]} specs @returns {Record<string, {dtype: string, shape: number[], data_offsets: number[]}>} */
function layout(specs) {
  /** @type {Record<string, {dtype: string, shape: number[], data_offsets: number[]}>} */
  const table = {};
  let start = 0;
  const sorted = [...specs].sort((a, b) => TYPES[b.tag][0] - TYPES[a.tag][0] || (a.name < b.name ? -1 : 1));
  for (const { name, tag, shape } of sorted) {
    const size = shape.reduce((all, count) => all * count, TYPES[tag][0]);
    table[name] = { dtype: tag, shape, data_offsets: [start, start + size] };
    start += size;
  }
  if (HEADER_BYTES + start >= BODY_LIMIT) {
    throw new WireError(`a body of ${HEADER_BYTES + start} bytes; the limit is ${BODY_LIMIT}: send smaller batches`);
  }
  return table;
}

/** @param {import("./packed.js").Packed} packed @returns {[string, string, number[], ArrayBufferView][]} */
function tokenArrays(packed) {
  if (packed.scheme === IDENTITY) return [["codes", "F32", [packed.tokens, packed.dim], packed.codes]];
  return [
    ["side", "BF16", [packed.tokens, 2], packed.side],
    ["codes", "U8", [packed.codes.length], packed.codes],
  ];
}

/** @param {Message} message @returns {Uint8Array} its body */
export function encode(message) {
  /** @type {Record<string, string>} */
  const metadata = { kind: message.kind };
  for (const key of NUMBERS[message.kind]) metadata[key] = String(/** @type {any} */ (message)[key]);
  /** @type {[string, string, number[], ArrayBufferView][]} */
  const arrays = [];
  if (message.kind === "adapter") {
    const values = /** @type {Float32Array} */ (message.values);
    if (!values.every(Number.isFinite)) {
      throw new NotFiniteError("adapter values hold NaN or inf; they would spoil every device's average");
    }
    arrays.push(["values", "F32", [values.length], values]);
  } else {
    for (const name of /** @type {const} */ (["lengths", "labels"])) {
      const vector = message[name];
      if (vector) arrays.push([name, "I32", [vector.length], vector]);
    }
    const packed = expectSizes(/** @type {import("./packed.js").Packed} */ (message.tokens));
    for (const key of TOKENS) metadata[key] = String(/** @type {any} */ (packed)[key]);
    arrays.push(...tokenArrays(packed));
  }
  const table = layout(arrays.map(([name, tag, shape]) => ({ name, tag, shape })));
  const text = JSON.stringify({ __metadata__: metadata, ...table }).padEnd(HEADER_BYTES - 8);
  const ends = Object.values(table).map((entry) => entry.data_offsets[1]);
  const body = new Uint8Array(HEADER_BYTES + Math.max(...ends));
  new DataView(body.buffer).setBigUint64(0, BigInt(HEADER_BYTES - 8), true);
  body.set(new TextEncoder().encode(text), 8);
  for (const [name, , , view] of arrays) {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    body.set(bytes, HEADER_BYTES + table[name].data_offsets[0]);
  }
  return body;
}

/** @param {Record<string, any>} metadata @param {string} key @returns {number} */
function count(metadata, key) {
  if (!/^[0-9]{1,9}$/.test(metadata[key])) {
    throw new WireError(`${key} is ${String(metadata[key]).slice(0, 40)}; it must be a decimal number below ${COUNT_LIMIT}`);
  }
  return Number(metadata[key]);
}

/** @param {Uint8Array} body @returns {{metadata: Record<string, string>, table: Record<string, any>}} */
function header(body) {
  const start = body.length >= HEADER_BYTES ? new DataView(body.buffer, body.byteOffset).getBigUint64(0, true) : -1n;
  if (start !== BigInt(HEADER_BYTES - 8)) {
    throw new WireError(`a body of ${body.length} bytes; every body starts with a header of ${HEADER_BYTES - 8} bytes`);
  }
  let found;
  try {
    found = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body.subarray(8, HEADER_BYTES)));
  } catch (error) {
    throw new WireError(`the header is no JSON in UTF-8 (${error})`);
  }
  const { __metadata__: metadata, ...table } = found ?? {};
  if (typeof metadata !== "object" || !Object.values(metadata ?? [0]).every((value) => typeof value === "string")) {
    throw new WireError("the header must be a JSON object whose __metadata__ maps strings to strings");
  }
  return { metadata, table };
}

/** @param {Record<string, string>} metadata @param {Record<string, any>} table @returns {Spec[]} */
function tokenSpecs(metadata, table) {
  const { scheme } = metadata;
  const [bits, tokens, dim] = [count(metadata, "bits"), count(metadata, "tokens"), count(metadata, "dim")];
  if (scheme === IDENTITY) return [{ name: "codes", tag: "F32", shape: [tokens, dim] }];
  const there = Number(table.codes?.shape?.[0]);
  const codes = isVariable(scheme) && Number.isSafeInteger(there) ? there : codesBytes(tokens, dim, bits, scheme);
  return [
    { name: "side", tag: "BF16", shape: [tokens, 2] },
    { name: "codes", tag: "U8", shape: [codes] },
  ];
}

/** @param {any} a @param {any} b @returns {boolean} whether two JSON values are equal, in any order of keys */
function same(a, b) {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return a === b;
  const keys = Object.keys(a);
  return (
    Array.isArray(a) === Array.isArray(b) &&
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]))
  );
}

/**
 * @param {Uint8Array} body of an answer
 * @param {"gradient" | "tokens" | "adapter"} kind that was agreed
 * @returns {Message} anything but a body that a server could have written throws
 */
export function decode(body, kind) {
  const { metadata, table } = header(body);
  if (metadata.kind !== kind) throw new WireError(`a ${metadata.kind} message came where a ${kind} was agreed`);
  const packed = kind === "tokens" || (kind === "gradient" && "scheme" in metadata);
  const wanted = ["kind", ...NUMBERS[kind], ...(kind === "gradient" ? ["loss"] : []), ...(packed ? TOKENS : [])];
  if (!same(Object.keys(metadata).sort(), wanted.sort())) {
    throw new WireError(`the ${kind} message must have the fields ${wanted.join(", ")} and no other`);
  }
  const specs = packed ? tokenSpecs(metadata, table) : [];
  const values = Number(table.values?.shape?.[0]);
  if (kind === "adapter") specs.push({ name: "values", tag: "F32", shape: [values] });
  const grids = kind === "adapter" && "side" in table;
  if (grids) specs.push({ name: "side", tag: "BF16", shape: [Math.ceil(values / ADAPTER_GROUP), 2] });
  const expected = layout(specs);
  if (!same(table, expected)) {
    throw new WireError(`tensors ${JSON.stringify(table).slice(0, 200)}; the numbers need ${JSON.stringify(expected)}`);
  }
  const size = HEADER_BYTES + Math.max(0, ...Object.values(expected).map((entry) => entry.data_offsets[1]));
  if (body.length !== size) throw new WireError(`a body of ${body.length} bytes; the message's numbers need ${size}`);
  const array = (/** @type {string} */ name, /** @type {string} */ tag) => {
    const [start, stop] = expected[name].data_offsets;
    return new TYPES[tag][1](body.slice(HEADER_BYTES + start, HEADER_BYTES + stop).buffer);
  };
  /** @type {any} */
  const message = { kind };
  for (const key of NUMBERS[kind]) message[key] = count(metadata, key);
  if (kind === "gradient") message.loss = lossOf(metadata.loss);
  if (grids) message.grid = array("side", "BF16");
  if (kind === "adapter") message.values = array("values", "F32");
  else message.tokens = packed ? readTokens(metadata, array) : null;
  return message;
}

/** @param {Record<string, string>} metadata @param {(name: string, tag: string) => any} array */
function readTokens(metadata, array) {
  const raw = metadata.scheme === IDENTITY;
  const codes = raw ? new Uint8Array(array("codes", "F32").buffer) : array("codes", "U8");
  const side = raw ? new Uint16Array(0) : array("side", "BF16");
  const [bits, tokens, dim] = [count(metadata, "bits"), count(metadata, "tokens"), count(metadata, "dim")];
  return expectSizes({ scheme: metadata.scheme, bits, tokens, dim, codes, side });
}

/** @param {string} text as Python writes a float @returns {number} */
function lossOf(text) {
  const named = /** @type {Record<string, number>} */ ({ inf: Infinity, "-inf": -Infinity, nan: NaN });
  if (text in named) return named[text];
  if (!/^-?[0-9][0-9.e+-]*$/.test(text) || Number.isNaN(Number(text))) {
    throw new WireError(`loss is ${text.slice(0, 40)}; it must be a number`);
  }
  return Number(text);
}
