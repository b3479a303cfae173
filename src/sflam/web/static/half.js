/**
 * A device's part of a model in a page: graphs run row by row, gradients summed, one optimiser step a mini-batch.
 *
 * The methods are those of `sflam.link.half.Half`, in this order in a step:
 *
 *     half.take(rows)                     what a message must announce: rows, tokens, lengths, labels
 *     half.forward(step)                  yields the activations at the cut, [m, d] at a time
 *     half.finish(step, last)             labels at home alone: {loss, gradient} for the server's last activations
 *     half.backward(step, gradient)       one optimiser step; null where no gradient comes back
 *
 * A round: `putOptimizer`, `write`, `begin`, its steps, `read`. A step that broke off is begun again by `take`: trained
 * values and optimiser change at the end of `backward` alone.
 *
 * B rows, n valid tokens of a step (padding never travels), d hidden size, P trained numbers.
 */

import { Engine, Arena } from "./engine.js";
import { ConfigError, RunError, WireError } from "./errors.js";
import { readBundle } from "./graph.js";
import { VectorOptimizer, clip } from "./optimizer.js";
import { BoundGraph } from "./bound.js";
import { Weights, write as writeTensors } from "./safetensors.js";
import { derive } from "./seeds.js";

/** @typedef {import("./optimizer.js").Learn} Learn */

/**
 * The rows of one step, prepared as the model reads them.
 *
 * Images: `pixels` float32 [B, C, S, S], normalised. Texts: `tokens`, for each row its valid token ids, without
 * padding. `labels` are classes [B]; a language model has none of its own (every token is the label of the one before).
 * @typedef {{pixels?: Float32Array, tokens?: ArrayLike<number>[], labels?: ArrayLike<number>}} Rows
 */

/**
 * Where a step is in the run: the seeds of its dropout before the cut and in the head, and its learning rate.
 * `seed = derive(run seed, "dropout", round, step, device)`, `headSeed = derive(seed, "head")`.
 * @typedef {{seed: bigint, headSeed: bigint, rate: number}} Step
 */

/**
 * What the messages of a step announce. `lengths` int32 [B] where texts differ in length, else null; `labels` int32 [B],
 * for language models the n token ids; null where labels stay at home.
 * @typedef {{rows: number, tokens: number, lengths: Int32Array | null, labels: Int32Array | null}} Taken
 */

/**
 * The n tokens of a message: all of them [n * d], or something that gives the next [count * d].
 * @typedef {Float32Array | {read: (count: number) => Float32Array}} Incoming
 */

/** @typedef {{first: number, start: number, counts: number[], inputs: Float32Array[], around: Map<string, any>}} Group */

const MOST_KEPT = 256 << 20; // bytes of block inputs kept from forward to backward; beyond, they are made again
const TOKENS_AT_ONCE = 512; // of images run together

/** One device's part of the model. */
export class Half {
  /**
   * Return the half of a bundle; GraphError, WireError or ConfigError in one line where it cannot be run here.
   * @param {object} given
   * @param {ArrayBuffer | Uint8Array} given.graphs the file of the graphs
   * @param {ArrayBuffer | Uint8Array} given.segment the segment file; it is kept, not copied
   * @param {Learn} [given.learn] of the job
   * @param {number} [given.cut] the cut the server named; checked
   * @param {string} [given.task] the task the server named; checked
   * @param {boolean} [given.dropout] false where activations are kept by samples (`learn.cache`)
   * @param {number} [given.rows] images run together; chosen by their tokens by default
   * @returns {Half}
   */
  static open({ graphs, segment, learn = {}, cut, task, dropout = true, rows }) {
    const bundle = readBundle(graphs);
    if ((cut ?? bundle.cut) !== bundle.cut || (task ?? bundle.task) !== bundle.task) {
      throw new WireError(`the graphs are of cut ${bundle.cut} and task ${bundle.task}, the job of ${cut} and ${task}; ` +
        "reload the page");
    }
    if (bundle.dtype !== "float32") {
      throw new ConfigError(`the job's graphs are of ${bundle.dtype}, a page computes in float32; join with sflam device`);
    }
    return new Half(bundle, new Weights(segment), learn, dropout, rows);
  }

  /** Use `Half.open`. */
  constructor(bundle, weights, learn, dropout, rows) {
    this.bundle = bundle;
    this.learn = learn;
    this._size = rows ?? Math.max(1, Math.floor(TOKENS_AT_ONCE / Math.max(1, bundle.tokens)));
    const local = learn.local || "plain";
    if (local !== "plain" && local !== "fedprox") {
      throw new ConfigError(`learn.local is ${local}, which a page does not do; join with sflam join`);
    }
    let total = 0;
    this._places = new Map();
    for (const [name, shape] of bundle.trained) {
      const size = shape.reduce((a, b) => a * b, 1);
      this._places.set(name, [total, total + size]);
      total += size;
    }
    this._values = new Float32Array(total);
    this._gradient = new Float32Array(total);
    /** @type {Float32Array | null} */
    this._start = null;
    this._optimizer = new VectorOptimizer(learn, total);
    const arena = new Arena(), engines = new Map();
    const bound = (graph, binding) => {
      if (!engines.has(graph)) engines.set(graph, new Engine(graph, { arena, dropout }));
      return new BoundGraph(engines.get(graph), binding, weights);
    };
    this._embed = bound(bundle.embed.graph, bundle.embed.binding);
    this._forward = bundle.blocks.map(({ kind, binding }) => bound(bundle.kinds[kind].forward, binding));
    this._joint = bundle.blocks.map(({ kind, binding }) => {
      const { joint } = bundle.kinds[kind];
      return joint && bound(joint, binding);
    });
    this._head = bundle.head && bound(bundle.head.graph, bundle.head.binding);
    /** @type {Rows} */
    this._rows = {};
    this._count = 0;
    /** @type {Group[]} */
    this._kept = [];
  }

  /** d. */
  get dim() {
    return this.bundle.dim;
  }

  /** Width of the activations, for the scheme `identity`. */
  get floatBits() {
    return 32;
  }

  /** Whether n is the tokens of one text row. */
  get text() {
    return this.bundle.text;
  }

  /** Whether every token is the label of the one before it. */
  get causal() {
    return this.bundle.task === "causal-lm";
  }

  /** Whether labels, head and loss are here, so that `finish` is called. */
  get hasHead() {
    return this._head !== null;
  }

  /** P; 0 where the half trains nothing, and adapters neither come nor go. */
  get trained() {
    return this._values.length;
  }

  /** Return a copy of the trained values [P], in the order in which they travel. */
  read() {
    return this._values.slice();
  }

  /**
   * Take over the trained values [P]; WireError where there are not P.
   * @param {Float32Array | Float64Array} values
   */
  write(values) {
    if (values.length !== this.trained) {
      throw new WireError(`${values.length} adapter values came; ${this.trained} were agreed: restart the round`);
    }
    this._values.set(values);
  }

  /**
   * Note where a round begins, [P]: what FedProx pulls to.
   * @param {Float32Array | Float64Array} start
   */
  begin(start) {
    this._start = this.learn.local === "fedprox" ? Float32Array.from(start) : null;
  }

  /**
   * Make rows those of the step; forget the ones before.
   * @param {Rows} rows
   * @returns {Taken}
   */
  take(rows) {
    this._kept = [];
    this._gradient.fill(0);
    this._count = this._counted(rows);
    this._rows = rows;
    const counts = this._counts(0, this._count);
    const tokens = counts.reduce((a, b) => a + b, 0);
    const even = !this.text || counts.every((count) => count === counts[0]);
    let labels = null;
    if (!this.hasHead) labels = this.causal ? Int32Array.from(rows.tokens.flatMap((row) => Array.from(row))) : Int32Array.from(rows.labels);
    return { rows: this._count, tokens, lengths: even ? null : Int32Array.from(counts), labels };
  }

  /**
   * Yield the activations at the cut, [m * d] at a time, row after row: n * d in all.
   * @param {Step} step
   * @returns {Generator<Float32Array>}
   */
  *forward(step) {
    this._kept = [];
    const tokens = this._counts(0, this._count).reduce((a, b) => a + b, 0);
    const keeps = this._joint.some(Boolean) && 4 * tokens * this.dim * this._joint.length <= MOST_KEPT;
    for (const group of this._groups()) {
      const hidden = this._hidden(group, step.seed, keeps, this._forward.length);
      if (keeps) this._kept.push(group);
      yield hidden;
    }
  }

  /**
   * Labels at home: run head and loss on the n tokens after the server's last block.
   * @param {Step} step
   * @param {Incoming} last
   * @returns {{loss: number, gradient: Float32Array}} mean loss of the mini-batch, and its gradient [n * d] for them
   */
  finish(step, last) {
    if (!this._head) throw new RunError("this half has no head; labels are not at home");
    const beyond = Number(this.causal); // a language model's last token has none that follows it
    const read = reader(last, this.dim), pieces = [];
    let loss = 0;
    const share = Float32Array.of(1 / this._targets());
    for (const group of this._groups()) {
      const tokens = group.counts.reduce((a, b) => a + b, 0);
      const n = this._n(group) - beyond, hidden = read(tokens);
      const given = this._given(group);
      given.set("hidden", beyond ? hidden.subarray(0, n * this.dim) : hidden);
      given.set("labels", this._labels(group)).set("share", share);
      const found = this._head.run(given, n, step.headSeed, group.first);
      loss += found.get("loss")[0];
      this._add(found);
      const gradient = new Float32Array(tokens * this.dim);
      gradient.set(found.get("gradient"));
      pieces.push(gradient);
    }
    return { loss, gradient: joined(pieces) };
  }

  /**
   * Take one optimiser step with the gradient of the n tokens at the cut; null where none comes back: the blocks before
   * the cut then do not move, with labels at home the head does.
   * @param {Step} step
   * @param {Incoming | null} gradient
   */
  backward(step, gradient) {
    if (gradient !== null) {
      const read = reader(gradient, this.dim);
      for (const group of this._kept.length ? this._kept : this._groups()) {
        const back = read(group.counts.reduce((a, b) => a + b, 0));
        this._differentiate(group, back, step.seed);
      }
    }
    this._kept = [];
    if ((gradient === null && !this.hasHead) || !this.trained) return;
    const sum = this._gradient, values = this._values, prox = Number(this.learn.prox ?? 0.01);
    if (this._start) for (let i = 0; i < sum.length; i++) sum[i] += prox * (values[i] - this._start[i]);
    clip(sum, Number(this.learn.clip ?? 1));
    this._optimizer.step(values, sum, step.rate);
  }

  /** Return a copy of the gradient [P] of the step under way, before clipping; for tests. */
  gradient() {
    return this._gradient.slice();
  }

  /** Return a copy of what the optimiser remembers. */
  optimizer() {
    return this._optimizer.state();
  }

  /**
   * Put back what `optimizer` returned; null makes it fresh.
   * @param {{steps: number, moments: Record<string, Float32Array>} | null} state
   */
  putOptimizer(state) {
    if (state) this._optimizer.restore(state);
    else this._optimizer.reset();
  }

  /**
   * Return all that must survive a reload, optimiser included.
   * @returns {ArrayBuffer}
   */
  state() {
    const { steps, moments } = this._optimizer.state();
    const start = this._start ? { start: this._start } : {};
    return writeTensors({ values: this._values, ...start, ...moments }, { steps: String(steps) });
  }

  /**
   * Put back what `state` returned; false where it is of another model, and nothing was changed.
   * @param {ArrayBuffer | Uint8Array} state
   * @returns {boolean}
   */
  restore(state) {
    const found = new Weights(state, "the state of this device");
    const names = ["values", ...Object.keys(this._optimizer.moments)];
    if (names.some((name) => found.entries.get(name)?.nbytes !== 4 * this.trained)) return false;
    const tensor = (name) => /** @type {Float32Array} */ (found.tensor(name, this.trained));
    const moments = Object.fromEntries(names.slice(1).map((name) => [name, tensor(name)]));
    this._optimizer.restore({ steps: Number(found.metadata.get("steps")), moments });
    this.write(tensor("values"));
    if (found.entries.has("start")) this.begin(tensor("start"));
    return true;
  }

  /** @private Return how many rows there are; WireError where they are not what the model reads. */
  _counted(rows) {
    if (this.text) {
      const least = this.causal ? 2 : 1, most = this.bundle.tokens || Infinity;
      if (!rows.tokens?.length) throw new RunError("a step needs rows of token ids");
      const bad = rows.tokens.find((row) => row.length < least || row.length > most);
      if (bad) throw new RunError(`a row has ${bad.length} tokens; this model reads ${least} to ${most}`);
      this._needLabels(rows, rows.tokens.length);
      return rows.tokens.length;
    }
    const each = this._embed.count("sample", 1);
    const count = (rows.pixels?.length ?? 0) / each;
    if (!count || !Number.isInteger(count)) {
      throw new RunError(`a step has ${rows.pixels?.length ?? 0} pixels; this model reads ${each} an image`);
    }
    this._needLabels(rows, count);
    return count;
  }

  /** @private */
  _needLabels(rows, count) {
    if (!this.causal && rows.labels?.length !== count) {
      throw new RunError(`a step has ${rows.labels?.length ?? 0} labels for ${count} rows; every row needs one`);
    }
  }

  /** @private Yield the groups of the mini-batch, in its order. */
  *_groups() {
    const size = this.text ? 1 : this._size;
    let first = 0;
    for (let start = 0; start < this._count; start += size) {
      /** @type {Group} */
      const group = { first, start, counts: this._counts(start, size), inputs: [], around: new Map() };
      yield group;
      first += this._n(group);
    }
  }

  /** @private @returns {number[]} */
  _counts(start, size) {
    const stop = Math.min(start + size, this._count);
    if (this.text) return this._rows.tokens.slice(start, stop).map((row) => row.length);
    return new Array(stop - start).fill(this.bundle.tokens);
  }

  /** @private n of a group: tokens of its text, or its images. */
  _n(group) {
    return this.text ? group.counts[0] : group.counts.length;
  }

  /** @private The trained tensors, and what the embedding hands to every block. */
  _given(group) {
    const given = new Map(group.around);
    for (const [name, [start, end]] of this._places) given.set(`trained ${name}`, this._values.subarray(start, end));
    return given;
  }

  /** @private Return a group's activations after `blocks` blocks. */
  _hidden(group, seed, keep, blocks) {
    const n = this._n(group);
    const sample = this.text ? ["sample input_ids", Float64Array.from(this._rows.tokens[group.start])] : this._pixels(group);
    const found = this._embed.run(new Map([sample]), n, derive(seed, "embedding"), group.first);
    let hidden = found.get("hidden");
    found.delete("hidden");
    group.around = found;
    const given = this._given(group);
    for (let index = 0; index < blocks; index++) {
      if (keep) group.inputs.push(hidden);
      given.set("hidden", hidden);
      hidden = this._forward[index].run(given, n, derive(seed, "block", index), group.first).get("hidden");
    }
    return hidden;
  }

  /** @private */
  _pixels(group) {
    const each = this._embed.count("sample", 1);
    const part = this._rows.pixels.subarray(group.start * each, (group.start + group.counts.length) * each);
    return ["sample pixel_values", part];
  }

  /** @private Add the gradients of a group, from that of its activations at the cut. */
  _differentiate(group, gradient, seed) {
    if (!this._joint.some(Boolean)) return;
    if (!group.inputs.length) group.inputs.push(this._hidden(group, seed, true, this._joint.length - 1));
    const given = this._given(group);
    for (let index = this._joint.length - 1; index >= 0 && this._joint[index]; index--) {
      given.set("hidden", group.inputs.pop()).set("gradient", gradient);
      const found = this._joint[index].run(given, this._n(group), derive(seed, "block", index), group.first);
      this._add(found);
      if (!found.has("gradient")) break;
      gradient = found.get("gradient");
    }
    group.inputs.length = 0;
  }

  /** @private Add the gradients of trained tensors among what a graph returned. */
  _add(found) {
    for (const [name, [start]] of this._places) {
      const part = found.get(`trained ${name}`);
      if (part) for (let i = 0; i < part.length; i++) this._gradient[start + i] += part[i];
    }
  }

  /** @private How many losses the mean over the mini-batch is of. */
  _targets() {
    if (!this.causal) return this._count;
    return this._counts(0, this._count).reduce((total, count) => total + count - 1, 0);
  }

  /** @private */
  _labels(group) {
    if (this.causal) return Float64Array.from(this._rows.tokens[group.start]).subarray(1);
    return Float64Array.from(this._rows.labels).subarray(group.start, group.start + group.counts.length);
  }
}

/**
 * @param {Incoming} tokens
 * @param {number} dim
 * @returns {(count: number) => Float32Array}
 */
function reader(tokens, dim) {
  if (!(tokens instanceof Float32Array)) return (count) => tokens.read(count);
  let at = 0;
  return (count) => {
    const part = tokens.subarray(at, (at += count * dim));
    if (part.length !== count * dim) throw new WireError("fewer tokens came than were sent; the step is made again");
    return part;
  };
}

/** @param {Float32Array[]} pieces */
function joined(pieces) {
  const out = new Float32Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
