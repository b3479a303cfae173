/** uint8 images to the float pixels a model expects: the numbers of `sflam.data.images` and `sflam.data.resize`. */

import { DataError } from "../errors.js";

const PRECISION = 22; // bits after the point of the weights, as in Pillow's Resample.c
const { fround } = Math;

/**
 * @typedef {object} Picture uint8 pixels, row after row, channels last
 * @property {number} height
 * @property {number} width
 * @property {number} channels 1 or 3
 * @property {Uint8Array} pixels
 */

/**
 * @typedef {object} ImageSpec what a model's images look like
 * @property {number} size S
 * @property {number} channels C, 1 or 3
 * @property {number[]} mean per channel
 * @property {number[]} std per channel
 * @property {number} resample Pillow's number of the resize filter
 */

/** @param {number} x @returns {number} */
function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/** @param {number} x @returns {number} */
function hamming(x) {
  x = Math.abs(x);
  if (x === 0 || x >= 1) return x === 0 ? 1 : 0;
  x *= Math.PI;
  return (Math.sin(x) / x) * (0.54 + 0.46 * Math.cos(x));
}

/** @param {number} x @returns {number} */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** @type {Record<number, [(x: number) => number, number]>} Pillow's number of a filter -> it, and its support */
const FILTERS = {
  1: [(x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), 3],
  2: [(x) => Math.max(0, 1 - Math.abs(x)), 1],
  3: [cubic, 2],
  4: [(x) => (x > -0.5 && x <= 0.5 ? 1 : 0), 0.5],
  5: [hamming, 1],
};
export const BOX = 4;

/** @type {Map<string, {first: number, weights: Float64Array}[]>} */
const BANDS = new Map();

/** @param {number} size @param {number} out @param {number} filter @returns {{first: number, weights: Float64Array}[]} */
function bands(size, out, filter) {
  const key = `${size} ${out} ${filter}`;
  const known = BANDS.get(key);
  if (known) return known;
  if (!(filter in FILTERS)) throw new DataError(`resample ${filter} of the model's images is not one that a browser has`);
  const [shape, wide] = FILTERS[filter];
  const scale = size / out;
  const stretched = Math.max(scale, 1);
  const support = wide * stretched;
  const found = Array.from({ length: out }, (_, at) => {
    const center = (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(size, Math.trunc(center + support + 0.5));
    const own = Array.from({ length: last - first }, (__, i) => shape((first + i - center + 0.5) * (1 / stretched)));
    const total = own.reduce((sum, weight) => sum + weight, 0);
    const weights = Float64Array.from(own, (weight) => {
      const exact = (total ? weight / total : weight) * 2 ** PRECISION;
      return Math.trunc(exact < 0 ? exact - 0.5 : exact + 0.5);
    });
    return { first, weights };
  });
  if (BANDS.size >= 16) BANDS.clear();
  BANDS.set(key, found);
  return found;
}

/** @param {number} sum @returns {number} */
function rounded(sum) {
  return Math.min(255, Math.max(0, Math.floor((sum + 2 ** (PRECISION - 1)) / 2 ** PRECISION)));
}

/** @param {Picture} picture @param {number} height @param {number} width @param {number} filter @returns {Picture} */
export function resized(picture, height, width, filter) {
  let { pixels } = picture;
  const { channels } = picture;
  if (picture.width !== width) {
    const rows = bands(picture.width, width, filter);
    const found = new Uint8Array(picture.height * width * channels);
    for (let y = 0, at = 0; y < picture.height; y++) {
      for (const { first, weights } of rows) {
        for (let channel = 0; channel < channels; channel++, at++) {
          let sum = 0;
          let from = (y * picture.width + first) * channels + channel;
          for (let i = 0; i < weights.length; i++, from += channels) sum += weights[i] * pixels[from];
          found[at] = rounded(sum);
        }
      }
    }
    pixels = found;
  }
  if (picture.height !== height) {
    const stride = width * channels;
    const found = new Uint8Array(height * stride);
    bands(picture.height, height, filter).forEach(({ first, weights }, y) => {
      for (let x = 0; x < stride; x++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * pixels[(first + i) * stride + x];
        found[y * stride + x] = rounded(sum);
      }
    });
    pixels = found;
  }
  return { height, width, channels, pixels };
}

/** @param {Picture} picture @param {number} channels @returns {Picture} with so many, the numbers of Pillow's convert */
export function inColours(picture, channels) {
  if (picture.channels === channels) return picture;
  const count = picture.width * picture.height;
  const { pixels } = picture;
  const found = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    if (channels === 3) found.fill(pixels[i], 3 * i, 3 * i + 3);
    else found[i] = (19595 * pixels[3 * i] + 38470 * pixels[3 * i + 1] + 7471 * pixels[3 * i + 2] + 0x8000) >>> 16;
  }
  return { ...picture, channels, pixels: found };
}

/** @param {Picture} picture @param {ImageSpec} spec @returns {Picture} in the model's own size and colours */
export function fitted(picture, spec) {
  return resized(inColours(picture, spec.channels), spec.size, spec.size, spec.resample);
}

/** @param {Picture[]} pictures @param {ImageSpec} spec @returns {Float32Array} [B C S S] */
export function toPixels(pictures, spec) {
  const { size, channels } = spec;
  const area = size * size;
  const found = new Float32Array(pictures.length * channels * area);
  const unit = fround(1 / 255);
  pictures.forEach((picture, row) => {
    const { pixels } = fitted(picture, spec);
    for (let channel = 0; channel < channels; channel++) {
      const mean = fround(spec.mean[channel]);
      const std = fround(spec.std[channel]);
      const start = (row * channels + channel) * area;
      for (let i = 0; i < area; i++) {
        found[start + i] = fround(fround(fround(pixels[i * channels + channel]) * unit) - mean) / std;
      }
    }
  });
  return found;
}
