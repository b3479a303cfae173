/** The trained numbers of a half as one vector [P], their gradients, and what moves them. */

import { ConfigError, GraphError, WireError } from "./errors.js";
import { VectorOptimizer, clip } from "./optimizer.js";
import { Weights, write as writeTensors } from "./safetensors.js";

const MOST = 2 ** 28; // trained numbers: with moments and gradients 4 GB

/** The trained tensors of a half; see the methods of `Half` for what each is for. */
export class Trained {
  /**
   * @param {Map<string, number[]>} shapes of the tensors, in the order of the vector
   * @param {import("./optimizer.js").Learn} learn
   */
  constructor(shapes, learn) {
    const local = learn.local || "plain";
    if (local !== "plain" && local !== "fedprox") {
      throw new ConfigError(`learn.local is ${local}, which a page does not do; join with sflam join`);
    }
    let total = 0;
    /** @type {Map<string, [number, number]>} source of a graph's input -> first place and end */
    this._places = new Map();
    for (const [name, shape] of shapes) {
      const start = total;
      total += shape.reduce((a, b) => a * b, 1);
      this._places.set(`trained ${name}`, [start, total]);
    }
    if (total > MOST) throw new GraphError(`the graphs train ${total} numbers; a page holds at most ${MOST}`);
    this._learn = learn;
    this.values = new Float32Array(total);
    this.gradient = new Float32Array(total);
    /** @type {Float32Array | null} where the round began, with FedProx */
    this._start = null;
    this.optimizer = new VectorOptimizer(learn, total);
  }

  /** Take over values [P]. @param {Float32Array | Float64Array} values */
  write(values) {
    if (values.length !== this.values.length) {
      throw new WireError(`${values.length} adapter values came; ${this.values.length} were agreed: restart the round`);
    }
    this.values.set(values);
  }

  /** Note where a round begins. @param {Float32Array | Float64Array} start [P] */
  begin(start) {
    this._start = this._learn.local === "fedprox" ? Float32Array.from(start) : null;
  }

  /** Put every tensor among what graphs are given. @param {Map<string, any>} given */
  put(given) {
    for (const [source, [start, end]] of this._places) given.set(source, this.values.subarray(start, end));
  }

  /** Add the gradients among what a graph returned. @param {Map<string, any>} found */
  add(found) {
    for (const [source, [start]] of this._places) {
      const part = found.get(source);
      if (part) for (let i = 0; i < part.length; i++) this.gradient[start + i] += part[i];
    }
  }

  /** Take one step with the gradient, which is used up. @param {number} rate */
  step(rate) {
    const { values, gradient, _start: start } = this, prox = Number(this._learn.prox ?? 0.01);
    if (start) for (let i = 0; i < values.length; i++) gradient[i] += prox * (values[i] - start[i]);
    clip(gradient, Number(this._learn.clip ?? 1));
    this.optimizer.step(values, gradient, rate);
  }

  /** Return all that must survive a reload. @returns {ArrayBuffer} */
  state() {
    const { steps, moments } = this.optimizer.state();
    const start = this._start ? { start: this._start } : {};
    return writeTensors({ values: this.values, ...start, ...moments }, { steps: String(steps) });
  }

  /** Put back what `state` returned; false where it is of another model. @param {ArrayBuffer | Uint8Array} state */
  restore(state) {
    const found = new Weights(state, "the state of this device"), count = this.values.length;
    const names = ["values", ...Object.keys(this.optimizer.moments)];
    const fits = (name) => found.entries.get(name)?.tag === "F32" && found.entries.get(name).nbytes === 4 * count;
    const steps = Number(found.metadata.get("steps"));
    if (!names.every(fits) || !Number.isSafeInteger(steps)) return false;
    const tensor = (name) => /** @type {Float32Array} */ (found.tensor(name, count));
    const moments = Object.fromEntries(names.slice(1).map((name) => [name, tensor(name)]));
    this.optimizer.restore({ steps, moments });
    this.write(tensor("values"));
    if (fits("start")) this.begin(tensor("start"));
    return true;
  }
}
