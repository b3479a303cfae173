/** The kinds of operation: one row each, as `sflam.graph.operations`, and whether a graph goes by them. */

import { GraphError } from "../errors.js";
import { Real } from "../json.js";
import * as of from "./inference.js";
import { sameShape, written } from "./size.js";

const ARITHMETIC = ["float", "int"], ANY = ["float", "int", "bool"];
const float = of.elementwise("float");
const number = of.elementwise(null, ARITHMETIC);
const order = of.elementwise("bool", ARITHMETIC);
const equal = of.elementwise("bool", ANY);
const logic = of.elementwise("bool", ["bool"]);
const AXIS = { axis: "int" }, REDUCE = { axes: "ints", keep: "bool" };

/**
 * `forms` names the form of each attribute; `view` marks outputs that may share their input's memory; `cells` those
 * whose every number hangs on the numbers at its own place alone.
 * @typedef {{least: number, most: number, infer: of.Infer, forms: Record<string, string>, view: boolean, cells: boolean}} Kind
 */

/** @returns {[string, Kind]} */
const row = (name, least, infer, forms = {}, more = {}) =>
  [name, { least, most: least, infer, forms, view: false, cells: false, ...more }];
const cells = (names, inputs, infer, forms = {}) => names.map((name) => row(name, inputs, infer, forms, { cells: true }));
const VIEW = { view: true };

/** @type {Map<string, Kind>} */
export const KINDS = new Map([
  ...cells(["add", "sub", "mul", "floor_divide", "remainder", "maximum", "minimum"], 2, number),
  ...cells(["div", "pow", "silu_grad"], 2, float),
  ...cells(["neg", "abs"], 1, number),
  ...cells(["exp", "log", "expm1", "log1p", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf"], 1, float),
  ...cells(["sin", "cos", "floor", "relu", "silu"], 1, float),
  ...cells(["gelu"], 1, float, { approximate: "approximate" }),
  ...cells(["gelu_grad"], 2, float, { approximate: "approximate" }),
  ...cells(["eq", "ne"], 2, equal),
  ...cells(["lt", "le", "gt", "ge"], 2, order),
  ...cells(["and", "or"], 2, logic),
  ...cells(["not"], 1, logic),
  ...cells(["where"], 3, of.where),
  ...cells(["cast"], 1, of.cast, { to: "numbers" }),
  row("softmax", 1, of.along, AXIS),
  row("softmax_grad", 2, of.along, AXIS),
  row("log_softmax", 1, of.along, AXIS),
  row("log_softmax_grad", 2, of.along, AXIS),
  row("layer_norm", 3, of.layerNorm, { eps: "float" }),
  row("layer_norm_grad", 5, of.layerNormGrad),
  row("sum", 1, of.reduce(ARITHMETIC), REDUCE),
  row("mean", 1, of.reduce(["float"]), REDUCE),
  row("max", 1, of.reduce(ARITHMETIC), REDUCE),
  row("any", 1, of.reduce(["bool"]), REDUCE),
  row("all", 1, of.reduce(["bool"]), REDUCE),
  row("cumsum", 1, of.cumulative, AXIS),
  row("matmul", 2, of.matmul),
  row("addmm", 3, of.addmm),
  row("linear", 2, of.linear, { transposed: "bool" }, { most: 3 }),
  row("reshape", 1, of.reshape, { shape: "sizes" }, VIEW),
  row("transpose", 1, of.transpose, { axes: "ints" }, VIEW),
  row("expand", 1, of.expand, { shape: "sizes" }, VIEW),
  row("slice", 1, of.slice, { axis: "int", start: "size", stop: "size", step: "int" }, VIEW),
  row("concat", 1, of.concat, AXIS, { most: 1024 }),
  row("pad", 1, of.pad, { axis: "int", before: "size", after: "size" }),
  row("take", 2, of.take),
  row("take_along", 2, of.takeAlong, AXIS),
  row("one_hot", 1, of.oneHot, { size: "size" }),
  row("fill", 0, of.fill, { shape: "sizes", value: "number", numbers: "numbers" }),
  row("arange", 0, of.arange, { stop: "size" }),
  row("count", 0, of.count, { size: "size", numbers: "numbers" }),
  row("dropout_mask", 0, of.drawn, { shape: "sizes", p: "float", stream: "int" }),
  row("uniform", 0, of.drawn, { shape: "sizes", stream: "int" }),
]);

/**
 * Raise GraphError unless every value is made once, before it is used, and has the shape it declares.
 * @param {import("../graph.js").Graph} graph
 */
export function check(graph) {
  const known = new Map();
  const define = (name, value) => {
    if (known.has(name)) throw new GraphError(`the value ${name} is made twice`);
    const declared = graph.values.get(name);
    if (!declared || declared.numbers !== value.numbers || !sameShape(declared.shape, value.shape)) {
      const reported = declared ? `${declared.numbers} ${written(declared.shape)}` : "nothing";
      throw new GraphError(`the value ${name} is declared as ${reported}; it is ${value.numbers} ${written(value.shape)}`);
    }
    known.set(name, value);
  };
  for (const name of graph.inputs) {
    if (!graph.values.has(name)) throw new GraphError(`the input ${name} is not among the values`);
    define(name, graph.values.get(name));
  }
  for (const operation of graph.operations) {
    const found = made(operation, known);
    if (found.length !== operation.outputs.length) {
      throw new GraphError(`${operation.kind} makes ${found.length} values, not ${operation.outputs.length}`);
    }
    found.forEach((value, at) => define(operation.outputs[at], value));
  }
  for (const name of graph.values.keys()) if (!known.has(name)) throw new GraphError(`the value ${name} is never made`);
  for (const name of graph.outputs) if (!known.has(name)) throw new GraphError(`the output ${name} is never made`);
  if (new Set(graph.outputs).size !== graph.outputs.length) throw new GraphError("an output is named twice");
  for (const name of graph.weights) {
    if (!graph.inputs.includes(name)) throw new GraphError(`the weight ${name} is no input`);
  }
}

function made({ kind, inputs, attributes }, known) {
  const own = KINDS.get(kind);
  if (inputs.length < own.least || inputs.length > own.most) {
    throw new GraphError(`${kind} of ${inputs.length} inputs; it takes ${own.least}..${own.most}`);
  }
  const given = inputs.map((operand) => {
    if (typeof operand !== "string") return operand;
    if (!known.has(operand)) throw new GraphError(`${kind} uses ${operand} before it is made`);
    return known.get(operand);
  });
  let out;
  try {
    out = own.infer(given, attributes);
  } catch (error) {
    if (error instanceof GraphError) throw new GraphError(`${kind}: ${error.message}`);
    throw error;
  }
  if (out.some((value) => value.shape.length > of.MOST_AXES)) {
    throw new GraphError(`${kind} makes a value of more than ${of.MOST_AXES} axes`);
  }
  return out;
}

/** @param {number | boolean | Real} operand @returns {number} */
export const plain = (operand) => Number(operand instanceof Real ? operand.value : operand);
