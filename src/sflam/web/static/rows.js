/** The rows of one step: what a message announces of them, and the groups in which they run. */

import { RunError } from "./errors.js";

/**
 * The rows of one step, prepared as the model reads them.
 *
 * Images: `pixels` float32 [B, C, S, S], normalised. Texts: `tokens`, for each row its valid token ids, without
 * padding. `labels` are classes [B]; a language model has none of its own (every token is the label of the one before).
 * @typedef {{pixels?: Float32Array, tokens?: ArrayLike<number>[], labels?: ArrayLike<number>}} Rows
 */

/**
 * What the messages of a step announce. `lengths` int32 [B] where texts differ in length, else null; `labels` int32 [B],
 * for language models the n token ids; null where labels stay at home.
 * @typedef {{rows: number, tokens: number, lengths: Int32Array | null, labels: Int32Array | null}} Taken
 */

/**
 * Rows that run together: how many n's came before, the first row, n, the tokens of all its rows; of each block its
 * input, where they are kept, and what the embedding hands to every block.
 * @typedef {{first: number, start: number, n: number, tokens: number, inputs: Float32Array[], around: Map<string, any>}} Group
 */

/** Rows that were checked against what a model reads. */
export class StepRows {
  /**
   * @param {import("./graph.js").Bundle} bundle
   * @param {number} each pixels of an image
   * @param {Rows} rows RunError where the model does not read them
   */
  constructor(bundle, each, rows) {
    this._bundle = bundle;
    this._rows = rows;
    this._each = each;
    this.causal = bundle.task === "causal-lm";
    this._counts = bundle.text ? this._ofTexts(rows.tokens ?? []) : this._ofImages(rows.pixels?.length ?? 0);
    if (!this.causal && rows.labels?.length !== this._counts.length) {
      throw new RunError(`a step has ${rows.labels?.length ?? 0} labels for ${this._counts.length} rows; every row needs one`);
    }
    /** n tokens of all rows. */
    this.tokens = sum(this._counts);
    /** How many losses the mean over the mini-batch is of. */
    this.targets = this.causal ? this.tokens - this._counts.length : this._counts.length;
  }

  /** @private @returns {number[]} */
  _ofTexts(tokens) {
    const least = this.causal ? 2 : 1, most = this._bundle.tokens || Infinity;
    if (!tokens.length) throw new RunError("a step needs rows of token ids");
    const bad = tokens.find((row) => row.length < least || row.length > most);
    if (bad) throw new RunError(`a row has ${bad.length} tokens; this model reads ${least} to ${most}`);
    return tokens.map((row) => row.length);
  }

  /** @private @returns {number[]} */
  _ofImages(pixels) {
    const count = pixels / this._each;
    if (!count || !Number.isInteger(count)) {
      throw new RunError(`a step has ${pixels} pixels; this model reads ${this._each} an image`);
    }
    return new Array(count).fill(this._bundle.tokens);
  }

  /** @param {boolean} labels whether they travel @returns {Taken} */
  announced(labels) {
    const counts = this._counts, even = !this._bundle.text || counts.every((count) => count === counts[0]);
    const sent = this.causal ? this._rows.tokens.flatMap((row) => Array.from(row)) : this._rows.labels;
    return {
      rows: counts.length,
      tokens: this.tokens,
      lengths: even ? null : Int32Array.from(counts),
      labels: labels ? Int32Array.from(sent) : null,
    };
  }

  /** Yield the groups, in order: one text, or so many images. @param {number} size @returns {Generator<Group>} */
  *groups(size) {
    const together = this._bundle.text ? 1 : size;
    let first = 0;
    for (let start = 0; start < this._counts.length; start += together) {
      const counts = this._counts.slice(start, start + together);
      const n = this._bundle.text ? counts[0] : counts.length;
      yield { first, start, n, tokens: sum(counts), inputs: [], around: new Map() };
      first += n;
    }
  }

  /** The sample of a group, by its role and name. @param {Group} group @returns {[string, Float32Array | Float64Array]} */
  sample({ start, n }) {
    if (this._bundle.text) return ["sample input_ids", Float64Array.from(this._rows.tokens[start])];
    return ["sample pixel_values", this._rows.pixels.subarray(start * this._each, (start + n) * this._each)];
  }

  /** The labels of a group, as the head takes them. @param {Group} group */
  labels({ start, n }) {
    if (this.causal) return Float64Array.from(this._rows.tokens[start]).subarray(1);
    return Float64Array.from(this._rows.labels).subarray(start, start + (this._bundle.text ? 1 : n));
  }
}

/** @param {number[]} numbers */
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
