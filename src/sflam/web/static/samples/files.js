/** Files picked by the user as samples: .npz arrays, tables of token ids, and pictures in whatever the browser reads. */

import { DataError } from "../errors.js";
import { readNpz } from "./npz.js";
import { classOf } from "./samples.js";
import { readRows } from "./tables.js";

const IMAGES = ["pixel_values", "image", "images", "pixels"];
const TOKENS = ["input_ids", "tokens"];
const MOST_PIXELS = 16e6; // of a canvas, which some phones refuse beyond

/** @typedef {import("./npz.js").NpyArray} NpyArray */

/**
 * @param {Map<string, NpyArray>} arrays
 * @param {string[]} names customary ones
 * @returns {NpyArray} the one of them that is there
 */
function inputs(arrays, names) {
  const there = names.filter((name) => arrays.has(name));
  if (there.length !== 1) {
    throw new DataError(`the file has the arrays ${[...arrays.keys()].join(", ")}; name the inputs ${names.join(" or ")}`);
  }
  return /** @type {NpyArray} */ (arrays.get(there[0]));
}

/** @param {Map<string, NpyArray>} arrays @param {number} count @returns {NpyArray} the labels */
function labelsOf(arrays, count) {
  const labels = arrays.get("label") ?? arrays.get("labels");
  if (!labels || labels.shape.length !== 1 || labels.shape[0] !== count || /^f/.test(labels.dtype)) {
    throw new DataError(`the file needs an array label of ${count} whole numbers or names, one for every sample`);
  }
  return labels;
}

/**
 * @param {Uint8Array} file .npz
 * @param {import("./samples.js").PictureSamples} samples takes its pictures
 * @param {string[]} classes of the job
 * @returns {Promise<number>} how many came
 */
export async function addPictures(file, samples, classes) {
  const arrays = await readNpz(file);
  const { dtype, shape, values } = inputs(arrays, IMAGES);
  const [count, height, width, channels = 1] = shape;
  if (dtype !== "u1" || ![3, 4].includes(shape.length) || ![1, 3].includes(channels)) {
    throw new DataError(`the pictures are ${dtype} [${shape}]; give uint8 [N, H, W] or [N, H, W, 1 or 3]`);
  }
  const labels = labelsOf(arrays, count);
  const numbers = Array.from({ length: count }, (_, i) => classOf(labels.values[i], classes));
  const size = height * width * channels;
  numbers.forEach((label, i) => {
    samples.add({ height, width, channels, pixels: values.slice(i * size, (i + 1) * size) }, label);
  });
  return count;
}

/**
 * @param {Uint8Array} file .npz, .json, .jsonl or .csv
 * @param {string} name
 * @param {import("./samples.js").TokenSamples} samples takes its rows
 * @param {string[]} classes of the job
 * @returns {Promise<number>} how many came
 */
export async function addRows(file, name, samples, classes) {
  if (!name.toLowerCase().endsWith(".npz")) {
    const rows = readRows(new TextDecoder().decode(file), name);
    const numbers = rows.map(({ label }) => (samples.causal ? 0 : classOf(label, classes)));
    rows.forEach(({ ids }, i) => samples.add(ids, numbers[i]));
    return rows.length;
  }
  const arrays = await readNpz(file);
  const { dtype, shape, values } = inputs(arrays, TOKENS);
  if (shape.length !== 2 || !/^[iu]/.test(dtype)) {
    throw new DataError(`the token ids are ${dtype} [${shape}]; give whole numbers [N, T]`);
  }
  const [count, width] = shape;
  const labels = samples.causal ? null : labelsOf(arrays, count);
  const lengths = arrays.get("lengths")?.values;
  const rows = Array.from({ length: count }, (_, i) => {
    const length = lengths ? Number(lengths[i]) : width;
    const ids = Array.from(values.slice(i * width, i * width + length), Number);
    return { ids, label: labels ? classOf(labels.values[i], classes) : 0 };
  });
  for (const { ids, label } of rows) samples.add(ids, label);
  return count;
}

/**
 * @param {Blob} file a picture; transparent parts become white
 * @returns {Promise<import("./pixels.js").Picture>} upright, RGB; throws DataError where the browser cannot read it
 */
export async function decoded(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new DataError(`${/** @type {File} */ (file).name} is not a picture that this browser can read; leave it out`);
  }
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * shrink)));
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return { height, width, channels: 3, pixels };
}
