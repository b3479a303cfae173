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

import { BoundGraph } from "./bound.js";
import { Arena, Engine } from "./engine.js";
import { ConfigError, RunError, WireError } from "./errors.js";
import { readBundle } from "./graph.js";
import { joined, reader } from "./pieces.js";
import { StepRows } from "./rows.js";
import { Weights } from "./safetensors.js";
import { derive } from "./seeds.js";
import { Trained } from "./trained.js";

/** @typedef {import("./optimizer.js").Learn} Learn */
/** @typedef {import("./rows.js").Rows} Rows */
/** @typedef {import("./rows.js").Taken} Taken */
/** @typedef {import("./rows.js").Group} Group */

/**
 * Where a step is in the run: the seeds of its dropout before the cut and in the head, and its learning rate.
 * `seed = derive(run seed, "dropout", round, step, device)`, `headSeed = derive(seed, "head")`.
 * @typedef {{seed: bigint, headSeed: bigint, rate: number}} Step
 */

/** @typedef {import("./pieces.js").Incoming} Incoming */

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
   * @param {boolean} [given.plain] without WebAssembly
   * @returns {Half}
   */
  static open({ graphs, segment, learn = {}, cut, task, dropout = true, rows, plain = false }) {
    const bundle = readBundle(graphs);
    if ((cut ?? bundle.cut) !== bundle.cut || (task ?? bundle.task) !== bundle.task) {
      throw new WireError(`the graphs are of cut ${bundle.cut} and task ${bundle.task}, the job of ${cut} and ${task}; ` +
        "reload the page");
    }
    if (bundle.dtype !== "float32") {
      throw new ConfigError(`the job's graphs are of ${bundle.dtype}, a page computes in float32; join with sflam device`);
    }
    return new Half(bundle, new Weights(segment), learn, { dropout, rows, plain });
  }

  /** Use `Half.open`. */
  constructor(bundle, weights, learn, { dropout, rows, plain }) {
    this.bundle = bundle;
    this._size = rows ?? Math.max(1, Math.floor(TOKENS_AT_ONCE / Math.max(1, bundle.tokens)));
    this._trained = new Trained(bundle.trained, learn);
    const arena = new Arena({ plain }), engines = new Map();
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
    this._pixels = bundle.text ? 0 : this._embed.count("sample", 1);
    /** @type {StepRows | null} of the step under way */
    this._rows = null;
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
    return this._trained.values.length;
  }

  /** Return a copy of the trained values [P], in the order in which they travel. */
  read() {
    return this._trained.values.slice();
  }

  /**
   * Take over the trained values [P]; WireError where there are not P.
   * @param {Float32Array | Float64Array} values
   */
  write(values) {
    this._trained.write(values);
  }

  /**
   * Note where a round begins, [P]: what FedProx pulls to.
   * @param {Float32Array | Float64Array} start
   */
  begin(start) {
    this._trained.begin(start);
  }

  /**
   * Make rows those of the step; forget the ones before.
   * @param {Rows} rows
   * @returns {Taken}
   */
  take(rows) {
    this._kept = [];
    this._trained.gradient.fill(0);
    this._rows = new StepRows(this.bundle, this._pixels, rows);
    return this._rows.announced(!this.hasHead);
  }

  /**
   * Yield the activations at the cut, [m * d] at a time, row after row: n * d in all.
   * @param {Step} step
   * @returns {Generator<Float32Array>}
   */
  *forward(step) {
    this._kept = [];
    const keeps = this._joint.some(Boolean) && 4 * this._rows.tokens * this.dim * this._joint.length <= MOST_KEPT;
    for (const group of this._rows.groups(this._size)) {
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
    const beyond = Number(this._rows.causal); // a language model's last token has none that follows it
    const read = reader(last, this.dim), pieces = [];
    let loss = 0;
    const share = Float32Array.of(1 / this._rows.targets);
    for (const group of this._rows.groups(this._size)) {
      const n = group.n - beyond, hidden = read(group.tokens);
      const given = this._given(group);
      given.set("hidden", beyond ? hidden.subarray(0, n * this.dim) : hidden);
      given.set("labels", this._rows.labels(group)).set("share", share);
      const found = this._head.run(given, n, step.headSeed, group.first);
      loss += found.get("loss")[0];
      this._trained.add(found);
      const gradient = new Float32Array(group.tokens * this.dim);
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
      for (const group of this._kept.length ? this._kept : this._rows.groups(this._size)) {
        this._differentiate(group, read(group.tokens), step.seed);
      }
    }
    this._kept = [];
    if (this.trained && (gradient !== null || this.hasHead)) this._trained.step(step.rate);
  }

  /** Return a copy of the gradient [P] of the step under way, before clipping; for tests. */
  gradient() {
    return this._trained.gradient.slice();
  }

  /** Return a copy of what the optimiser remembers. */
  optimizer() {
    return this._trained.optimizer.state();
  }

  /**
   * Put back what `optimizer` returned; null makes it fresh.
   * @param {{steps: number, moments: Record<string, Float32Array>} | null} state
   */
  putOptimizer(state) {
    if (state) this._trained.optimizer.restore(state);
    else this._trained.optimizer.reset();
  }

  /**
   * Return all that must survive a reload, optimiser included.
   * @returns {ArrayBuffer}
   */
  state() {
    return this._trained.state();
  }

  /**
   * Put back what `state` returned; false where it is of another model, and nothing was changed.
   * @param {ArrayBuffer | Uint8Array} state
   * @returns {boolean}
   */
  restore(state) {
    return this._trained.restore(state);
  }

  /** @private The trained tensors, and what the embedding hands to every block. */
  _given(group) {
    const given = new Map(group.around);
    this._trained.put(given);
    return given;
  }

  /** @private Return a group's activations after `blocks` blocks. */
  _hidden(group, seed, keep, blocks) {
    const { n } = group;
    const found = this._embed.run(new Map([this._rows.sample(group)]), n, derive(seed, "embedding"), group.first);
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

  /** @private Add the gradients of a group, from that of its activations at the cut. */
  _differentiate(group, gradient, seed) {
    if (!this._joint.some(Boolean)) return;
    if (!group.inputs.length) group.inputs.push(this._hidden(group, seed, true, this._joint.length - 1));
    const given = this._given(group);
    for (let index = this._joint.length - 1; index >= 0 && this._joint[index]; index--) {
      given.set("hidden", group.inputs.pop()).set("gradient", gradient);
      const found = this._joint[index].run(given, group.n, derive(seed, "block", index), group.first);
      this._trained.add(found);
      if (!found.has("gradient")) break;
      gradient = found.get("gradient");
    }
    group.inputs.length = 0;
  }
}
