/** One graph with its engine and its frozen tensors: its inputs and outputs go by what they are. */

import { GraphError } from "./errors.js";
import { countOf, shapeAt } from "./graph/size.js";

/** A graph bound to a segment file. */
export class BoundGraph {
  /**
   * @param {import("./engine.js").Engine} engine
   * @param {import("./graph.js").Binding} binding
   * @param {import("./safetensors.js").Weights} weights
   */
  constructor(engine, binding, weights) {
    this._engine = engine;
    this._binding = binding;
    const { graph } = engine;
    /** @type {Map<string, any>} */
    this._inputs = new Map();
    this._given = graph.inputs.filter((name) => !graph.weights.has(name));
    for (const name of graph.weights) {
      const value = graph.values.get(name), count = shapeAt(value.shape, 0).reduce((a, b) => a * b, 1);
      this._inputs.set(name, weights.tensor(binding.inputs.get(name).split(" ")[1], count, value.numbers));
    }
  }

  /** Return how many numbers the input of a role has for an n. @param {string} role @param {number} n */
  count(role, n) {
    const name = this._given.find((each) => this._binding.inputs.get(each).split(" ")[0] === role);
    if (name === undefined) throw new GraphError(`a graph takes no ${role}`);
    return countOf(this._engine.graph.values.get(name).shape).at(n);
  }

  /**
   * Return what the outputs are, by role and name; see `Engine.run`.
   * @param {Map<string, any>} given
   * @param {number} n
   * @param {bigint} seed
   * @param {number} first
   * @returns {Map<string, any>}
   */
  run(given, n, seed, first) {
    for (const name of this._given) {
      const source = this._binding.inputs.get(name);
      if (!given.has(source)) throw new GraphError(`the input ${name}, ${source}, is missing`);
      this._inputs.set(name, given.get(source));
    }
    const found = this._engine.run(this._inputs, n, seed, first);
    return new Map([...found].map(([name, array]) => [this._binding.outputs.get(name), array]));
  }
}
