/** A device's samples, bound to the job's model: what each step takes its rows from. */

import { DataError } from "../errors.js";
import { fitted, toPixels } from "./pixels.js";

/** @typedef {import("./pixels.js").Picture} Picture */

/**
 * @typedef {object} Samples
 * @property {number} count N
 * @property {Int32Array | null} lengths [N] tokens of each; null for images
 * @property {(indices: ArrayLike<number>) => import("../half.js").Rows} rows the rows of a step
 */

/** @param {unknown} label name of a class, or a number that is one @param {string[]} classes @returns {number} its number */
export function classOf(label, classes) {
  const at = classes.indexOf(String(label));
  if (at < 0) {
    throw new DataError(
      `there is a sample of the class ${String(label).slice(0, 60)}, which the job does not know (it has ` +
        `${classes.slice(0, 20).join(", ")}); rename it, or leave its samples out`,
    );
  }
  return at;
}

/** Pictures with their classes. @implements {Samples} */
export class PictureSamples {
  /** @param {import("./pixels.js").ImageSpec} spec of the model's images */
  constructor(spec) {
    this.spec = spec;
    /** @type {Picture[]} */
    this.pictures = [];
    /** @type {number[]} */
    this.labels = [];
    this.lengths = null;
    /** Whether this device's share of the job's own data is among them. */
    this.shared = false;
  }

  get count() {
    return this.pictures.length;
  }

  /** @param {Picture} picture kept as it is, or in the model's size where that is less @param {number} label */
  add(picture, label) {
    const { size, channels } = this.spec;
    const large = picture.pixels.length > size * size * channels;
    this.pictures.push(large ? fitted(picture, this.spec) : picture);
    this.labels.push(label);
  }

  /** @param {number} index */
  remove(index) {
    this.pictures.splice(index, 1);
    this.labels.splice(index, 1);
  }

  /** @param {ArrayLike<number>} indices @returns {import("../half.js").Rows} */
  rows(indices) {
    const own = Array.from(indices);
    const pixels = toPixels(own.map((index) => this.pictures[index]), this.spec);
    return { pixels, labels: Int32Array.from(own, (index) => this.labels[index]) };
  }

  /** @returns {any} what a database can keep */
  plain() {
    return { pictures: this.pictures, labels: this.labels, shared: this.shared };
  }

  /** @param {any} plain what {@link plain} returned */
  restore(plain) {
    this.pictures = plain?.pictures ?? [];
    this.labels = plain?.labels ?? [];
    this.shared = plain?.shared ?? false;
  }
}

/** Rows of token ids with their classes; a language model's have none. @implements {Samples} */
export class TokenSamples {
  /**
   * @param {{vocabulary: number, most: number}} spec ids are below the vocabulary; a row has `most` tokens at most, or any
   *   number where it is 0
   * @param {boolean} causal whether every token is the label of the one before it
   */
  constructor(spec, causal) {
    Object.assign(this, { spec, causal });
    /** @type {Int32Array[]} */
    this.texts = [];
    /** @type {number[]} */
    this.labels = [];
    this.shared = false;
  }

  get count() {
    return this.texts.length;
  }

  get lengths() {
    return Int32Array.from(this.texts, (ids) => ids.length);
  }

  /** @param {ArrayLike<number>} ids @param {number} label */
  add(ids, label) {
    const { vocabulary, most } = this.spec;
    const least = this.causal ? 2 : 1;
    const own = Int32Array.from(ids);
    if (own.length < least || (most && own.length > most)) {
      throw new DataError(`a row of ${own.length} tokens; the job's model reads ${least} to ${most}: shorten it, or leave it out`);
    }
    const beyond = own.find((id) => id < 0 || id >= vocabulary);
    if (beyond !== undefined) {
      throw new DataError(`token id ${beyond}, but the job's vocabulary ends at ${vocabulary - 1}; use the model's own tokenizer`);
    }
    this.texts.push(own);
    this.labels.push(label);
  }

  /** @param {ArrayLike<number>} indices @returns {import("../half.js").Rows} */
  rows(indices) {
    const own = Array.from(indices);
    const tokens = own.map((index) => this.texts[index]);
    return this.causal ? { tokens } : { tokens, labels: Int32Array.from(own, (index) => this.labels[index]) };
  }

  /** @returns {any} what a database can keep */
  plain() {
    return { texts: this.texts, labels: this.labels };
  }

  /** @param {any} plain what {@link plain} returned */
  restore(plain) {
    this.texts = plain?.texts ?? [];
    this.labels = plain?.labels ?? [];
  }
}
