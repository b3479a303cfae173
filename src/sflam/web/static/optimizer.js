/**
 * AdamW, Adam and SGD over one vector of trained numbers: torch's arithmetic, as `sflam.device.optimizer`. P numbers.
 */

import { ConfigError, RunError, shown } from "./errors.js";

const BETA1 = 0.9, BETA2 = 0.999, EPSILON = 1e-8;
const CLIP_EPSILON = 1e-6; // what torch's clip_grad_norm_ adds to a norm
const MOMENTS = { adamw: ["exp_avg", "exp_avg_sq"], adam: ["exp_avg", "exp_avg_sq"], sgd: ["momentum_buffer"] };

/**
 * What a device needs of the job's `[learn]`, by the job's own names.
 * @typedef {object} Learn
 * @property {"adamw" | "adam" | "sgd"} [optimizer] adamw by default
 * @property {number} [weight_decay] 0 by default
 * @property {number} [momentum] of sgd, 0 by default
 * @property {number} [clip] limit of the gradient's norm, 1 by default; 0: none
 * @property {string} [local] "plain" (also "", the default) or "fedprox"
 * @property {number} [prox] mu of fedprox, 0.01 by default
 */

/** The optimiser of one vector [P]. */
export class VectorOptimizer {
  /**
   * @param {Learn} learn
   * @param {number} size P
   */
  constructor(learn, size) {
    const kind = learn.optimizer ?? "adamw";
    if (!Object.hasOwn(MOMENTS, kind)) {
      throw new ConfigError(`learn.optimizer is ${shown(kind)}; it must be one of ${Object.keys(MOMENTS).join(", ")}`);
    }
    this.kind = kind;
    this.size = size;
    this.decay = Number(learn.weight_decay ?? 0);
    this.momentum = Number(learn.momentum ?? 0);
    this.steps = 0;
    const names = kind === "sgd" && !this.momentum ? [] : MOMENTS[kind];
    /** @type {Record<string, Float32Array>} */
    this.moments = Object.fromEntries(names.map((name) => [name, new Float32Array(size)]));
  }

  /** Forget everything, as at the start. */
  reset() {
    this.steps = 0;
    for (const moment of Object.values(this.moments)) moment.fill(0);
  }

  /**
   * Return the step count and copies of the moments, by torch's names.
   * @returns {{steps: number, moments: Record<string, Float32Array>}}
   */
  state() {
    const copies = Object.entries(this.moments).map(([name, moment]) => [name, moment.slice()]);
    return { steps: this.steps, moments: Object.fromEntries(copies) };
  }

  /**
   * Put back what `state` returned; RunError where it is of another optimiser or size.
   * @param {{steps: number, moments: Record<string, Float32Array>}} state
   */
  restore(state) {
    const own = Object.keys(this.moments).sort(), given = Object.keys(state.moments).sort();
    if (String(own) !== String(given) || given.some((name) => state.moments[name].length !== this.size)) {
      throw new RunError(`a state of the optimiser holds ${given.join(", ") || "nothing"}, not ${own.join(", ") ||
        "nothing"} of ${this.size} numbers; forget this device's state and join again`);
    }
    this.steps = state.steps;
    for (const name of own) this.moments[name].set(state.moments[name]);
  }

  /**
   * Move `values` [P] by one step; `gradient` [P] is used up.
   * @param {Float32Array} values
   * @param {Float32Array} gradient
   * @param {number} rate learning rate
   */
  step(values, gradient, rate) {
    this.steps++;
    if (this.kind === "sgd") this._sgd(values, gradient, rate);
    else this._adam(values, gradient, rate);
  }

  /** @private */
  _sgd(values, gradient, rate) {
    const { decay, momentum } = this;
    if (decay) for (let i = 0; i < values.length; i++) gradient[i] += decay * values[i];
    let move = gradient;
    if (momentum) {
      move = this.moments.momentum_buffer;
      if (this.steps > 1) for (let i = 0; i < move.length; i++) move[i] = Math.fround(move[i] * momentum) + gradient[i];
      else move.set(gradient); // torch begins with the gradient itself
    }
    for (let i = 0; i < values.length; i++) values[i] -= Math.fround(rate * move[i]);
  }

  /** @private */
  _adam(values, gradient, rate) {
    const { decay, moments: { exp_avg: mean, exp_avg_sq: square } } = this;
    const keep = decay && this.kind === "adamw" ? 1 - rate * decay : 1;
    const pull = decay && this.kind === "adam" ? decay : 0;
    const root = Math.sqrt(1 - BETA2 ** this.steps), scale = rate / (1 - BETA1 ** this.steps);
    for (let i = 0; i < values.length; i++) {
      const value = Math.fround(values[i] * keep);
      const g = pull ? Math.fround(gradient[i] + pull * value) : gradient[i];
      mean[i] += (1 - BETA1) * (g - mean[i]);
      square[i] = Math.fround(square[i] * BETA2) + (1 - BETA2) * g * g;
      values[i] = value - (scale * mean[i]) / (Math.sqrt(square[i]) / root + EPSILON);
    }
  }
}

/**
 * Scale `gradient` [P] to norm `most` where it is longer, as torch's clip_grad_norm_ does; 0: never.
 * @param {Float32Array} gradient
 * @param {number} most
 */
export function clip(gradient, most) {
  if (!most) return;
  let sum = 0;
  for (let i = 0; i < gradient.length; i++) sum += gradient[i] * gradient[i];
  const factor = Math.min(1, most / (Math.sqrt(sum) + CLIP_EPSILON));
  // NaN must stay NaN, as in torch.
  if (factor !== 1) for (let i = 0; i < gradient.length; i++) gradient[i] *= factor;
}
