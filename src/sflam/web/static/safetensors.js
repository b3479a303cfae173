/**
 * Safetensors files of strangers: the header is read strictly, tensors when they are needed; and such files written.
 *
 * An int8 tensor `name` [o, ...] has its scales beside it, `name.scale` float32 [o]: row k is worth int8 * scale[k].
 */

import { SflamError, WireError, shown } from "./errors.js";
import { parse } from "./json.js";

const MOST_HEADER = 16 << 20;
const MOST_AXES = 8;
/** Tag of a file -> bytes of a number. */
const STORED = new Map([["F64", 8], ["F32", 4], ["F16", 2], ["BF16", 2], ["I8", 1], ["U8", 1], ["I64", 8], ["I32", 4], ["BOOL", 1]]);
/** Kind of number in a graph -> its arrays; whole numbers are exact in doubles up to 2^53. */
const ARRAYS = { float: Float32Array, int: Float64Array, bool: Uint8Array };

/** @typedef {{tag: string, shape: number[], start: number, nbytes: number}} TensorEntry */

/** The tensors of one file in memory. */
export class Weights {
  /**
   * @param {ArrayBuffer | Uint8Array} file
   * @param {string} [name] what to call it in errors
   */
  constructor(file, name = "the segment file") {
    this.bytes = file instanceof Uint8Array ? file : new Uint8Array(file);
    this.name = name;
    const found = readHeader(this.bytes, name);
    /** @type {Map<string, TensorEntry>} */
    this.entries = found.entries;
    /** @type {Map<string, any>} */
    this.metadata = found.metadata;
  }

  /**
   * Return a tensor's numbers, row-major; a view of the file where it holds them as they are wanted.
   * @param {string} name
   * @param {number} count how many numbers it must have
   * @param {"float" | "int" | "bool"} numbers
   * @returns {Float32Array | Float64Array | Uint8Array}
   */
  tensor(name, count, numbers = "float") {
    const entry = this.entries.get(name);
    if (!entry) throw new WireError(`${this.name} has no tensor ${name.slice(0, 60)}; fetch the segment file of this job again`);
    if (product(entry.shape) !== count) {
      throw new WireError(`tensor ${name} of ${this.name} has the shape [${entry.shape}], the graph asks for ${count} ` +
        "numbers; fetch the segment file and the graphs of one job");
    }
    const raw = this._raw(entry);
    const Wanted = ARRAYS[numbers];
    if (raw instanceof Wanted && (numbers !== "bool" || entry.tag === "BOOL")) return raw;
    const out = new Wanted(count);
    for (let i = 0; i < count; i++) out[i] = numbers === "bool" ? Number(raw[i] !== 0) : Number(raw[i]);
    if (entry.tag === "I8" && numbers === "float") this._scale(name, entry, out);
    return out;
  }

  /** @private @param {TensorEntry} entry */
  _raw(entry) {
    const { tag, nbytes } = entry;
    const count = nbytes / STORED.get(tag);
    let start = this.bytes.byteOffset + entry.start, buffer = this.bytes.buffer;
    if (start % STORED.get(tag)) {
      buffer = this.bytes.slice(entry.start, entry.start + nbytes).buffer;
      start = 0;
    }
    if (tag === "F16") return Float32Array.from(new Uint16Array(buffer, start, count), fromHalf);
    if (tag === "BF16") {
      const words = Uint32Array.from(new Uint16Array(buffer, start, count), (half) => half << 16);
      return new Float32Array(words.buffer);
    }
    const Kind = { F64: Float64Array, F32: Float32Array, I8: Int8Array, I64: BigInt64Array, I32: Int32Array }[tag] ?? Uint8Array;
    return new Kind(buffer, start, count);
  }

  /** @private */
  _scale(name, entry, out) {
    const found = this.entries.get(`${name}.scale`);
    if (!entry.shape.length || found?.tag !== "F32" || found.shape.length !== 1 || found.shape[0] !== entry.shape[0]) {
      throw new WireError(`int8 tensor ${name} [${entry.shape}] of ${this.name} must have float32 scales, one per row`);
    }
    const scales = this._raw(found);
    const width = out.length / Math.max(1, entry.shape[0]);
    for (let i = 0; i < out.length; i++) out[i] *= scales[Math.floor(i / width)];
  }
}

/**
 * Return where the tensors of a file lie, and its metadata; WireError where it contradicts the format or itself.
 * @param {Uint8Array} bytes
 * @param {string} name
 * @returns {{entries: Map<string, TensorEntry>, metadata: Map<string, any>}}
 */
export function readHeader(bytes, name) {
  const size = bytes.length;
  const claimed = size < 8 ? -1n : new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  const most = Math.max(0, Math.min(MOST_HEADER, size - 8));
  if (claimed < 2n || claimed > BigInt(most)) {
    throw new WireError(`${name} (${size} bytes) is no safetensors file: its header claims ${claimed} bytes, at most ` +
      `${most} are possible; fetch it again`);
  }
  const data = 8 + Number(claimed);
  let table;
  try {
    table = parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, data)), `the header of ${name}`);
  } catch (error) {
    if (error instanceof SflamError) throw new WireError(`${error.message}; fetch the file again`);
    throw new WireError(`the header of ${name} is no UTF-8; fetch the file again`);
  }
  if (!(table instanceof Map)) throw new WireError(`the header of ${name} must be an object`);
  const metadata = table.get("__metadata__") ?? new Map();
  if (!(metadata instanceof Map)) throw new WireError(`the metadata of ${name} must be an object`);
  table.delete("__metadata__");
  const entries = new Map([...table].map(([key, found]) => [key, entryOf(key, found, data, name)]));
  let end = data;
  for (const [key, entry] of [...entries].sort((a, b) => a[1].start - b[1].start || a[1].nbytes - b[1].nbytes)) {
    if (entry.start !== end) {
      throw new WireError(`tensor ${key.slice(0, 60)} of ${name} starts at byte ${entry.start}, the one before ends at ` +
        `${end}; tensors may neither overlap nor leave gaps`);
    }
    end += entry.nbytes;
  }
  if (end !== size) throw new WireError(`the tensors of ${name} end at byte ${end}, the file at ${size}; fetch it again`);
  return { entries, metadata };
}

/** @returns {TensorEntry} */
function entryOf(key, found, data, name) {
  const what = `tensor ${key.slice(0, 60)} of ${name}`;
  if (!(found instanceof Map) || String([...found.keys()].sort()) !== "data_offsets,dtype,shape") {
    throw new WireError(`${what} must say dtype, shape and data_offsets and nothing else`);
  }
  const tag = found.get("dtype"), shape = found.get("shape"), offsets = found.get("data_offsets");
  if (!STORED.has(tag)) throw new WireError(`${what} has the dtype ${shown(tag)}; known are ${[...STORED.keys()].join(", ")}`);
  if (!areSizes(shape) || shape.length > MOST_AXES) {
    throw new WireError(`${what} has the shape ${shown(shape)}; it must be at most ${MOST_AXES} whole numbers >= 0`);
  }
  if (!areSizes(offsets) || offsets.length !== 2) {
    throw new WireError(`${what} has the data_offsets ${shown(offsets)}; they must be [first byte, end]`);
  }
  const nbytes = product(shape) * STORED.get(tag);
  if (offsets[1] - offsets[0] !== nbytes) {
    throw new WireError(`${what} takes ${nbytes} bytes by its shape, ${offsets[1] - offsets[0]} by its data_offsets`);
  }
  return { tag, shape, start: data + offsets[0], nbytes };
}

/**
 * Return a file of float32 tensors.
 * @param {Record<string, Float32Array>} tensors
 * @param {Record<string, string>} [metadata]
 * @returns {ArrayBuffer}
 */
export function write(tensors, metadata = {}) {
  const table = { __metadata__: metadata };
  let end = 0;
  for (const [name, values] of Object.entries(tensors)) {
    table[name] = { dtype: "F32", shape: [values.length], data_offsets: [end, (end += values.byteLength)] };
  }
  let text = JSON.stringify(table);
  const encoder = new TextEncoder();
  text += " ".repeat((8 - (encoder.encode(text).length % 8)) % 8); // tensors then begin at a multiple of 8
  const header = encoder.encode(text);
  const out = new Uint8Array(8 + header.length + end);
  new DataView(out.buffer).setBigUint64(0, BigInt(header.length), true);
  out.set(header, 8);
  let at = 8 + header.length;
  for (const values of Object.values(tensors)) {
    out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return out.buffer;
}

/** @param {number} bits of a float16 */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

const areSizes = (found) => Array.isArray(found) && found.every((size) => Number.isSafeInteger(size) && size >= 0);
const product = (sizes) => sizes.reduce((total, size) => total * size, 1);
