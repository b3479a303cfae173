/** Arrays of an `.npz` file of NumPy, compressed or not; nothing in it is ever unpickled. */

import { DataError } from "../errors.js";

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const STORED = 0;
const DEFLATED = 8;
const MAGIC = "\x93NUMPY";
const MOST = 1 << 30; // bytes of an array

/**
 * @typedef {object} NpyArray
 * @property {string} dtype as NumPy writes it, without the byte order
 * @property {number[]} shape
 * @property {any} values a typed array; names are an array of strings
 */

/** @type {Record<string, any>} */
const TYPES = {
  u1: Uint8Array, i1: Int8Array, b1: Uint8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
  u8: BigUint64Array, i8: BigInt64Array, f4: Float32Array, f8: Float64Array,
};

/**
 * @param {Uint8Array} file
 * @returns {Promise<Map<string, NpyArray>>} its arrays by name; throws DataError where it is none
 */
export async function readNpz(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let end = file.length - 22;
  while (end >= 0 && end > file.length - 70000 && view.getUint32(end, true) !== END) end--;
  if (end < 0 || view.getUint32(end, true) !== END) throw new DataError("this is no .npz file; write one with numpy.savez");
  const found = new Map();
  try {
    let at = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left; left--) {
      if (view.getUint32(at, true) !== ENTRY) throw new RangeError("its table is damaged");
      const [name, extra, remark] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
      const label = new TextDecoder().decode(file.subarray(at + 46, at + 46 + name));
      const body = await contentOf(file, view, at);
      if (label.endsWith(".npy")) found.set(label.slice(0, -4), readNpy(body, label));
      at += 46 + name + extra + remark;
    }
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw new DataError(`the .npz file is damaged (${/** @type {Error} */ (error).message}); write it again`);
  }
  return found;
}

/** @param {Uint8Array} file @param {DataView} view @param {number} entry @returns {Promise<Uint8Array>} */
async function contentOf(file, view, entry) {
  const method = view.getUint16(entry + 10, true);
  const [packed, size] = [view.getUint32(entry + 20, true), view.getUint32(entry + 24, true)];
  const local = view.getUint32(entry + 42, true);
  if (size > MOST || packed > file.length) throw new DataError(`an array of ${size} bytes; a page reads ${MOST} at most`);
  const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  const body = file.subarray(start, start + packed);
  if (method === STORED) return body;
  if (method !== DEFLATED) throw new DataError(`the .npz file is packed by method ${method}; write it with numpy.savez`);
  const stream = new Blob([/** @type {BlobPart} */ (body)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const found = new Uint8Array(await new Response(stream).arrayBuffer());
  if (found.length !== size) throw new RangeError(`${found.length} bytes unpacked, ${size} named`);
  return found;
}

/** @param {Uint8Array} body of an .npy file @param {string} name @returns {NpyArray} */
function readNpy(body, name) {
  if (String.fromCharCode(...body.subarray(0, 6)) !== MAGIC) throw new DataError(`${name} in the .npz file is no array`);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const wide = body[6] > 1;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const text = new TextDecoder("latin1").decode(body.subarray(start, start + length));
  const descr = /'descr':\s*'([<>|=]?)([a-zA-Z])(\d+)'/.exec(text);
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(text);
  if (!descr || !shape || !/'fortran_order':\s*False/.test(text) || descr[1] === ">") {
    throw new DataError(`${name} in the .npz file is not a plain array in C order (${text.trim().slice(0, 100)})`);
  }
  const sizes = shape[1].split(",").filter((part) => part.trim()).map(Number);
  const count = sizes.reduce((all, size) => all * size, 1);
  const dtype = descr[2] + descr[3];
  const data = body.slice(start + length);
  if (descr[2] === "U") return { dtype, shape: sizes, values: namesOf(data, count, Number(descr[3])) };
  const type = TYPES[dtype];
  if (!type) throw new DataError(`${name} in the .npz file holds ${dtype}; pages read whole numbers, floats and names`);
  if (data.length !== count * type.BYTES_PER_ELEMENT) throw new DataError(`${name} in the .npz file has a wrong size`);
  return { dtype, shape: sizes, values: new type(data.buffer) };
}

/** @param {Uint8Array} data UTF-32 @param {number} count @param {number} width letters of each @returns {string[]} */
function namesOf(data, count, width) {
  const letters = new Uint32Array(data.buffer);
  return Array.from({ length: count }, (_, i) => {
    const own = letters.subarray(i * width, (i + 1) * width);
    return Array.from(own, (letter) => (letter ? String.fromCodePoint(letter) : "")).join("");
  });
}
