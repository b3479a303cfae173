/**
 * Strict reading of graphs and bundles, which a hostile server may have written: one GraphError line, or a value.
 *
 * Nothing is evaluated; counts and sizes are limited before anything is built from them. See `sflam.graph.reading`.
 */

import { GraphError, shown } from "./errors.js";
import { Real, parse } from "./json.js";
import { expectBound } from "./graph/binding.js";
import { MOST_AXES } from "./graph/inference.js";
import { KINDS, check } from "./graph/operations.js";
import { readSize } from "./graph/size.js";

const VERSION = 1;
const MOST_BYTES = 16 << 20;
const MOST_OPERATIONS = 20_000;
const MOST_VALUES = 50_000;
const MOST_BLOCKS = 1024;
const MOST_NAMES = 100_000;
const MOST_WHOLE = 2 ** 40;
const NAME = /^[A-Za-z0-9_.\-]{1,200}$/;
const TASK = /^[a-z0-9-]{1,60}$/;
const NUMBERS = ["float", "int", "bool"];
const KEYS = ["version", "cut", "dim", "text", "tokens", "task", "dtype", "trained", "embed", "kinds", "blocks", "head"];

/** @typedef {import("./graph/inference.js").Value} Value */
/** @typedef {{kind: string, inputs: (string | number | boolean | Real)[], outputs: string[], attributes: Record<string, any>}} Operation */
/** @typedef {{inputs: string[], outputs: string[], values: Map<string, Value>, operations: Operation[], weights: Set<string>}} Graph */
/** Where an input comes from, or what an output is: "role", or "role name".
 * @typedef {{inputs: Map<string, string>, outputs: Map<string, string>}} Binding */
/** @typedef {{graph: Graph, binding: Binding}} Piece */
/**
 * @typedef {object} Bundle
 * @property {number} cut @property {number} dim @property {boolean} text @property {number} tokens
 * @property {string} task @property {"float32" | "float64"} dtype @property {Piece} embed
 * @property {{forward: Graph, joint: Graph | null}[]} kinds @property {{kind: number, binding: Binding}[]} blocks
 * @property {Piece | null} head @property {Map<string, number[]>} trained
 */

/**
 * Return the bundle of a file.
 * @param {ArrayBuffer | Uint8Array} body
 * @returns {Bundle}
 */
export function readBundle(body) {
  const bytes = body instanceof Uint8Array ? body : new Uint8Array(body);
  if (bytes.length > MOST_BYTES) throw new GraphError(`the graphs take ${bytes.length} bytes; at most ${MOST_BYTES} are read`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new GraphError("the graphs are no JSON: no UTF-8");
  }
  const bundle = bundleFrom(parse(text, "the graphs"));
  expectBound(bundle);
  return bundle;
}

function bundleFrom(found) {
  const data = object(found, "bundle", KEYS);
  if (data.version !== VERSION) throw new GraphError(`the graphs are of version ${shown(data.version)}; this page reads ${VERSION}`);
  if (typeof data.text !== "boolean") throw new GraphError("text is neither true nor false");
  const trained = mapping(data.trained, "trained", MOST_NAMES);
  const kinds = list(data.kinds, "kinds", MOST_BLOCKS);
  return {
    cut: whole(data.cut, "cut", MOST_BLOCKS),
    dim: whole(data.dim, "dim", 2 ** 20),
    text: data.text,
    tokens: whole(data.tokens, "tokens", 2 ** 24),
    task: oneOf(data.task, "task", (task) => TASK.test(task), "a short name"),
    dtype: oneOf(data.dtype, "dtype", (dtype) => dtype === "float32" || dtype === "float64", "float32 or float64"),
    trained: new Map([...trained].map(([name, shape]) =>
      [name, list(shape, name, MOST_AXES).map((size) => whole(size, `a size of ${name}`))])),
    embed: piece(data.embed, "embed"),
    kinds: kinds.map((kind, number) => blockKind(kind, `kind ${number}`)),
    blocks: list(data.blocks, "blocks", MOST_BLOCKS).map((block, number) => blockOf(block, number, kinds.length)),
    head: data.head === null ? null : piece(data.head, "head"),
  };
}

/**
 * Return the graph that parsed data describes, with every shape checked.
 * @param {any} found
 * @param {string} [where]
 * @returns {Graph}
 */
export function graphFrom(found, where = "graph") {
  const data = object(found, where, ["inputs", "outputs", "weights", "values", "operations"]);
  const values = mapping(data.values, `${where}: values`, MOST_VALUES);
  const operations = list(data.operations, `${where}: operations`, MOST_OPERATIONS);
  try {
    const graph = {
      inputs: names(data.inputs, "inputs"),
      outputs: names(data.outputs, "outputs"),
      values: new Map([...values].map(([key, value]) => [key, valueOf(value, key)])),
      operations: operations.map(operation),
      weights: new Set(names(data.weights, "weights")),
    };
    check(graph);
    return graph;
  } catch (error) {
    if (error instanceof GraphError) throw new GraphError(`${where}: ${error.message}`);
    throw error;
  }
}

function valueOf(found, key) {
  if (!Array.isArray(found) || found.length !== 2 || !NUMBERS.includes(found[0])) {
    throw new GraphError(`the value ${key} is ${shown(found)}; it must be a kind of number and a shape`);
  }
  return { numbers: found[0], shape: sizes(found[1]) };
}

/** @returns {Operation} */
function operation(found) {
  if (!Array.isArray(found) || found.length !== 4 || typeof found[0] !== "string") {
    throw new GraphError(`an operation is ${shown(found)}; it must be a kind, inputs, outputs, attributes`);
  }
  const kind = found[0], own = KINDS.get(kind);
  if (!own) throw new GraphError(`unknown kind of operation ${shown(kind.slice(0, 40))}`);
  const given = mapping(found[3], `${kind}: attributes`, 16), wanted = Object.keys(own.forms);
  if (given.size !== wanted.length || !wanted.every((key) => given.has(key))) {
    throw new GraphError(`${kind} has the attributes [${[...given.keys()].sort()}]; it has [${wanted.sort()}]`);
  }
  return {
    kind,
    inputs: list(found[1], `${kind}: inputs`, 1024).map((each) => (typeof each === "string" ? name(each) : number(each))),
    outputs: names(found[2], `${kind}: outputs`),
    attributes: Object.fromEntries(wanted.map((key) => [key, ATTRIBUTES[own.forms[key]](given.get(key))])),
  };
}

function number(found) {
  if (typeof found === "boolean" || typeof found === "number" || found instanceof Real) return found;
  throw new GraphError(`${shown(found)} stands where a finite number must`);
}

function whole(found, what = "a number", most = MOST_WHOLE) {
  if (!Number.isInteger(found) || found < 0 || found > most) {
    throw new GraphError(`${what} is ${shown(found)}; it must be a whole number in 0..${most}`);
  }
  return found;
}

const sizes = (found) => list(found, "a shape", MOST_AXES).map(readSize);

function oneOf(found, what, fits, wanted) {
  if (typeof found !== "string" || !fits(found)) throw new GraphError(`${what} is ${shown(found)}; it must be ${wanted}`);
  return found;
}

/** Form of an attribute -> how it is read. */
const ATTRIBUTES = {
  int: (found) => whole(found),
  ints: (found) => list(found, "axes", MOST_AXES).map((each) => whole(each, "an axis", MOST_AXES)),
  float: (found) => {
    const read = number(found);
    if (typeof read === "boolean") throw new GraphError(`${read} stands where a number must`);
    return Number(read instanceof Real ? read.value : read);
  },
  bool: (found) => {
    if (typeof found !== "boolean") throw new GraphError(`${shown(found)} is neither true nor false`);
    return found;
  },
  size: readSize,
  sizes,
  number,
  numbers: (found) => oneOf(found, "a kind of number", (each) => NUMBERS.includes(each), NUMBERS.join(", ")),
  approximate: (found) => oneOf(found, "approximate", (each) => each === "none" || each === "tanh", "none or tanh"),
};

function blockKind(found, where) {
  const { forward, joint } = object(found, where, ["forward", "joint"]);
  return {
    forward: graphFrom(forward, `${where}, forward`),
    joint: joint === null ? null : graphFrom(joint, `${where}, joint`),
  };
}

function blockOf(found, at, kinds) {
  const data = object(found, `block ${at}`, ["kind", "inputs", "outputs"]);
  const kind = whole(data.kind, `the kind of block ${at}`, MOST_BLOCKS);
  if (kind >= kinds) throw new GraphError(`block ${at} is of kind ${kind}; there are ${kinds}`);
  return { kind, binding: binding(data) };
}

function piece(found, where) {
  const data = object(found, where, ["graph", "inputs", "outputs"]);
  return { graph: graphFrom(data.graph, where), binding: binding(data) };
}

/** @returns {Binding} */
function binding(data) {
  const side = (key) => new Map([...mapping(data[key], key, MOST_VALUES)].map(([at, source]) => [at, sourceOf(source)]));
  return { inputs: side("inputs"), outputs: side("outputs") };
}

function sourceOf(found) {
  if (!Array.isArray(found) || found.length < 1 || found.length > 2) {
    throw new GraphError(`${shown(found)} binds nothing; give a role and perhaps a name`);
  }
  return found.map(name).join(" ");
}

const names = (found, what) => list(found, what, MOST_VALUES).map(name);

function name(found) {
  if (typeof found !== "string" || !NAME.test(found)) {
    throw new GraphError(`${shown(found)} is no name; letters, digits, dots, hyphens and underscores are`);
  }
  return found;
}

function list(found, what, most) {
  if (!Array.isArray(found) || found.length > most) throw new GraphError(`${what} must be a list of at most ${most}`);
  return found;
}

function mapping(found, what, most) {
  if (!(found instanceof Map) || found.size > most) throw new GraphError(`${what} must be an object of at most ${most} names`);
  for (const key of found.keys()) name(key);
  return found;
}

function object(found, what, keys) {
  if (!(found instanceof Map) || found.size !== keys.length || !keys.every((key) => found.has(key))) {
    const given = found instanceof Map ? `[${[...found.keys()].sort().slice(0, 20)}]` : "no object";
    throw new GraphError(`${what} has ${given.slice(0, 200)}; it must have ${keys.join(", ")}`);
  }
  return Object.fromEntries(found);
}
