/** A graph bound to one n: where every value lies in the memory, and the operations as calls. */

import { GraphError } from "./errors.js";
import { KINDS, plain } from "./graph/operations.js";
import { Size, shapeAt } from "./graph/size.js";
import { cellOf } from "./kernels/cells.js";
import { SCRATCH_BYTES } from "./kernels/products.js";
import { KERNELS, whole } from "./kernels/table.js";
import { broadcastStrides, contiguous, copier, countIn, isContiguous, loops, viewOf, walk } from "./layout.js";

/** @typedef {import("./layout.js").Strided} Strided */
/** @typedef {import("./graph.js").Graph} Graph */
/** @typedef {import("./kernels/moving.js").Draw} Draw */

const BYTES = { float: 4, int: 8, bool: 1 };
const ARRAYS = { float: Float32Array, int: Float64Array, bool: Uint8Array };
const ALIGN = 64;
const MOST_BYTES = 2 ** 31;

/** Offsets handed out and given back, the lowest that fits first. */
class Room {
  constructor() {
    /** @type {[number, number][]} free pieces, from, to */
    this.free = [[0, Infinity]];
    this.bytes = 0;
  }

  /** @param {number} nbytes @returns {number} */
  take(nbytes) {
    const size = Math.ceil(nbytes / ALIGN) * ALIGN;
    const at = this.free.findIndex(([from, to]) => to - from >= size);
    const [from, to] = this.free[at];
    if (from + size === to) this.free.splice(at, 1);
    else this.free[at] = [from + size, to];
    this.bytes = Math.max(this.bytes, from + size);
    return from;
  }

  /** @param {number} from @param {number} nbytes */
  give(from, nbytes) {
    const size = Math.ceil(nbytes / ALIGN) * ALIGN;
    if (!size) return;
    const at = this.free.findIndex(([start]) => start > from);
    this.free.splice(at, 0, [from, from + size]);
    for (const left of [at, at - 1]) {
      if (left < 0 || this.free[left][1] !== this.free[left + 1]?.[0]) continue;
      this.free.splice(left, 2, [this.free[left][0], this.free[left + 1][1]]);
    }
  }
}

/** All calls of a graph for one n. */
export class Program {
  /**
   * @param {Graph} graph
   * @param {number} n
   * @param {import("./kernels/products.js").Memory} memory
   */
  constructor(graph, n, memory) {
    this._graph = graph;
    this._n = n;
    this._memory = memory;
    this._room = new Room();
    /** @type {((draw: Draw) => void)[]} */
    this._calls = [];
    /** @type {Map<string, Strided>} */
    this._at = new Map();
    /** Value -> the value whose memory it lies in. @type {Map<string, string>} */
    this._owner = new Map();
    this._sizes = new Map();
    /** Weights lie where they were given. @type {Map<string, {data: any}>} */
    this._weights = new Map();
    for (const name of graph.inputs) this._input(name);
    const last = this._lastUses();
    graph.operations.forEach((operation, at) => {
      this._operation(operation, at, last);
      for (const owner of [...this._sizes.keys()]) if (last.get(owner) === at) this._free(owner);
    });
    memory.reserve(this._room.bytes);
  }

  /**
   * Return the outputs by name, arrays of their own.
   * @param {Map<string, any> | Record<string, any>} given input -> numbers, row-major
   * @param {Draw} draw
   * @returns {Map<string, Float32Array>}
   */
  run(given, draw) {
    const { inputs, outputs, values, weights } = this._graph;
    for (const name of inputs) {
      const array = given instanceof Map ? given.get(name) : given[name];
      const at = this._at.get(name), count = countIn(at.shape), { numbers } = values.get(name);
      if (!(array instanceof ARRAYS[numbers]) || array.length !== count) {
        throw new GraphError(`input ${name} is ${array?.length ?? "missing"} numbers of ${array?.constructor?.name}; for ` +
          `n = ${this._n} the graph takes ${count} of ${ARRAYS[numbers].name}`);
      }
      if (weights.has(name)) this._weights.get(name).data = array;
      else at.store.data.set(array, at.offset);
    }
    for (const call of this._calls) call(draw);
    return new Map(outputs.map((name) => [name, this._copied(name)]));
  }

  /** @private */
  _copied(name) {
    const at = this._at.get(name), out = new ARRAYS[this._graph.values.get(name).numbers](countIn(at.shape));
    copier({ store: { data: out }, ...whole(at.shape) }, at)();
    return out;
  }

  /** @private */
  _shape(name) {
    return shapeAt(this._graph.values.get(name).shape, this._n);
  }

  /** @private */
  _input(name) {
    if (!this._graph.weights.has(name)) {
      this._make(name);
      return;
    }
    const store = { data: null };
    this._weights.set(name, store);
    this._owner.set(name, name);
    this._at.set(name, { store, ...whole(this._shape(name)) });
  }

  /** @private Give a value memory of its own, or that of an operand. */
  _make(name, over = null) {
    const { numbers } = this._graph.values.get(name), shape = this._shape(name);
    const nbytes = countIn(shape) * BYTES[numbers];
    if (!(nbytes <= MOST_BYTES)) {
      throw new GraphError(`the value ${name} takes ${nbytes} bytes for n = ${this._n}; at most ${MOST_BYTES} are held`);
    }
    const from = over ? this._sizes.get(over)[0] : this._room.take(nbytes);
    if (over) this._sizes.delete(over);
    if (this._room.bytes > MOST_BYTES) throw new GraphError(`a run of n = ${this._n} takes more than ${MOST_BYTES} bytes`);
    this._sizes.set(name, [from, nbytes]);
    this._owner.set(name, name);
    const at = { store: this._memory[numbers], offset: (SCRATCH_BYTES + from) / BYTES[numbers], shape, strides: contiguous(shape) };
    this._at.set(name, at);
    return at;
  }

  /** @private */
  _free(owner) {
    this._room.give(...this._sizes.get(owner));
    this._sizes.delete(owner);
  }

  /** @private Owner -> the last operation that uses it; outputs of the graph are never freed. */
  _lastUses() {
    const { operations, inputs, outputs } = this._graph, owner = new Map(inputs.map((name) => [name, [name]]));
    const last = new Map();
    operations.forEach(({ kind, inputs: given, outputs: made }, at) => {
      const names = given.filter((each) => typeof each === "string");
      // A view may become a copy: what it may share and what it may own are both kept.
      for (const name of made) owner.set(name, KINDS.get(kind).view ? [name, ...owner.get(names[0])] : [name]);
      for (const name of [...names, ...made]) for (const each of owner.get(name)) last.set(each, at);
    });
    for (const name of outputs) for (const each of owner.get(name)) last.set(each, Infinity);
    return last;
  }

  /** @private */
  _operation({ kind, inputs, outputs, attributes }, at, last) {
    const own = Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, this._resolved(value)]));
    const name = outputs[0];
    if (KINDS.get(kind).view) {
      this._view(kind, inputs[0], name, own);
      return;
    }
    const numbers = inputs.map((each) => typeof each === "string" && this._graph.values.get(each).numbers).find(Boolean);
    const cell = cellOf(kind, own, numbers ?? "float");
    const kernel = cell ? null : KERNELS.get(kind);
    const operands = inputs.map((each) => this._operand(each, kind === "where" ? this._graph.values.get(name).numbers : numbers));
    const temporary = [];
    if (kernel) {
      operands.forEach((x, which) => {
        if (kernel.gaps.includes(which) || isContiguous(x)) return;
        const copied = this._temporary(x, this._graph.values.get(inputs[which]).numbers, temporary);
        this._calls.push(copier(copied, x));
        operands[which] = copied;
      });
    }
    const shape = this._shape(name);
    const candidates = cell ? inputs.map((_, which) => which) : kernel.over;
    const over = candidates.find((which) => this._mayTake(inputs, operands, which, name, shape, at, last, Boolean(cell)));
    const outs = outputs.map((each, which) => this._make(each, which || over === undefined ? null : this._owner.get(inputs[over])));
    this._calls.push(cell ? cellCall(cell, outs[0], operands)
      : kernel.bind({ outs, operands, attributes: own, n: this._n, gemm: this._memory }));
    for (const held of temporary) this._room.give(...held);
  }

  /** @private Whether a result may take the memory of an operand: used here for the last time, and of its form. */
  _mayTake(inputs, operands, which, name, shape, at, last, cell) {
    const input = inputs[which];
    if (typeof input !== "string") return false;
    const owner = this._owner.get(input), held = this._sizes.get(owner), x = operands[which];
    const numbers = (each) => this._graph.values.get(each).numbers;
    if (!held || last.get(owner) !== at || numbers(owner) !== numbers(name) || this._graph.inputs.includes(owner)) return false;
    const start = (SCRATCH_BYTES + held[0]) / BYTES[numbers(owner)];
    const same = (y) => y.offset === start && isContiguous(y) && String(y.shape) === String(shape);
    // Another operand in the same memory must be read place by place, too.
    return same(x) && inputs.every((other, place) => place === which || typeof other !== "string" ||
      this._owner.get(other) !== owner || (cell && same(operands[place])));
  }

  /** @private */
  _temporary(x, numbers, temporary) {
    const nbytes = countIn(x.shape) * BYTES[numbers], from = this._room.take(nbytes);
    temporary.push([from, nbytes]);
    return { store: this._memory[numbers], offset: (SCRATCH_BYTES + from) / BYTES[numbers], shape: x.shape, strides: contiguous(x.shape) };
  }

  /** @private */
  _view(kind, input, name, attributes) {
    const x = this._at.get(input);
    if (kind === "slice") this._expectWithin(attributes, x.shape);
    const found = viewOf(kind, x, attributes);
    if (found) {
      this._at.set(name, found);
      this._owner.set(name, this._owner.get(input));
      return;
    }
    const out = this._make(name);
    this._calls.push(copier({ ...out, shape: x.shape, strides: contiguous(x.shape) }, x));
  }

  /** @private */
  _expectWithin({ axis, start, stop }, shape) {
    if (start < 0 || stop < start || stop > shape[axis]) {
      throw new GraphError(`a slice from ${start} to ${stop} of ${shape[axis]} for n = ${this._n} is out of order`);
    }
  }

  /** @private A value, or a number as an array of its own. */
  _operand(each, numbers = "float") {
    if (typeof each === "string") return this._at.get(each);
    return { store: { data: ARRAYS[numbers].of(plain(each)) }, ...whole([]) };
  }

  /** @private */
  _resolved(value) {
    if (value instanceof Size) return value.at(this._n);
    if (Array.isArray(value)) return value.map((each) => this._resolved(each));
    return typeof value === "object" ? plain(value) : value;
  }
}

/** @returns {() => void} */
function cellCall(cell, out, operands) {
  const strides = operands.map((x) => broadcastStrides(x, out.shape));
  const plan = loops(out.shape, [out.strides, ...strides]);
  const [, as, bs, cs] = plan.steps.map((own) => own.at(-1));
  const starts = [out.offset, ...operands.map((x) => x.offset)];
  return () => {
    const [a, b, c] = operands.map((x) => x.store.data), o = out.store.data;
    walk(plan, starts, (places, count) => cell(o, places[0], count, a, places[1], as, b, places[2], bs, c, places[3], cs));
  };
}
