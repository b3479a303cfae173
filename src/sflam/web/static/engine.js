/** Runs graphs in one memory: a program for each n, bound once and kept while there is room. */

import { GraphError } from "./errors.js";
import { Memory } from "./kernels/products.js";
import { Program } from "./program.js";

/** @typedef {import("./graph.js").Graph} Graph */

const PROGRAMS = 32; // bound programs kept: a few kilobytes an operation

/** One memory for every graph of a device half; they run one after the other. */
export class Arena {
  /** @param {{plain?: boolean}} [how] `plain`: without WebAssembly */
  constructor({ plain = false } = {}) {
    this.memory = new Memory(plain);
    /** @type {Map<string, Program>} */
    this._programs = new Map();
    this._engines = 0;
  }

  /** @returns {number} */
  number() {
    return this._engines++;
  }

  /** Return a program, made where it is not there; the ones used longest ago go. */
  program(key, make) {
    const found = this._programs.get(key) ?? make();
    this._programs.delete(key);
    this._programs.set(key, found);
    if (this._programs.size > PROGRAMS) this._programs.delete(this._programs.keys().next().value);
    return found;
  }
}

/** Runs one graph, for any n, in float32. */
export class Engine {
  /**
   * @param {Graph} graph
   * @param {{arena?: Arena, dropout?: boolean}} [how] engines may share an arena; without dropout everything is kept
   */
  constructor(graph, { arena = new Arena(), dropout = true } = {}) {
    this.graph = dropout ? graph : withoutDropout(graph);
    this._arena = arena;
    this._number = arena.number();
  }

  /**
   * Return the outputs by name, row-major. Whole numbers are doubles, truth values bytes.
   * @param {Map<string, any> | Record<string, any>} values input -> numbers
   * @param {number} n
   * @param {bigint | number} [seed] of the dropout masks
   * @param {number} [first] how many n's of the mini-batch came before this run
   * @returns {Map<string, Float32Array>}
   */
  run(values, n, seed = 0, first = 0) {
    if (!Number.isSafeInteger(n) || n < 0) throw new GraphError(`n is ${n}; it must be a whole number of 0 or more`);
    const program = this._arena.program(`${this._number} ${n}`, () => new Program(this.graph, n, this._arena.memory));
    return program.run(values, { seed, first });
  }
}

/** @param {Graph} graph @returns {Graph} */
function withoutDropout(graph) {
  const operations = graph.operations.map((each) =>
    (each.kind === "dropout_mask" ? { ...each, attributes: { ...each.attributes, p: 0 } } : each));
  return { ...graph, operations };
}
