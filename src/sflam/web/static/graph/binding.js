/** Whether a bundle hangs together: every input bound to a source of its role and shape; see `sflam.graph.binding`. */

import { GraphError } from "../errors.js";
import { N, ONE, sameShape, shapeOf, written } from "./size.js";

const INTO = {
  embed: ["frozen", "sample"],
  block: ["frozen", "trained", "hidden", "gradient", "surrounding"],
  head: ["frozen", "trained", "hidden", "labels", "share"],
};
const OUT_OF = {
  embed: ["hidden", "surrounding"],
  forward: ["hidden"],
  joint: ["gradient", "trained"],
  head: ["loss", "gradient", "trained"],
};
const NAMED = ["frozen", "trained", "sample", "surrounding"];

const role = (source) => source.split(" ")[0];
const nameOf = (source) => source.split(" ")[1] ?? "";

/**
 * Raise GraphError, in one line, unless a device can run the bundle from end to end.
 * @param {import("../graph.js").Bundle} bundle
 */
export function expectBound(bundle) {
  if (bundle.blocks.length !== bundle.cut) throw new GraphError(`${bundle.blocks.length} blocks; the cut is ${bundle.cut}`);
  const { embed, head, kinds, blocks } = bundle;
  const around = expect(bundle, embed.graph, embed.binding, "embed", "embed", new Map(), "embed");
  const surroundings = new Map([...around].filter(([source]) => role(source) === "surrounding"));
  expectOne(around, "hidden", "embed");
  const trained = new Set();
  blocks.forEach((block, index) => {
    const { forward, joint } = kinds[block.kind], where = `block ${index}`;
    const out = expect(bundle, forward, block.binding, "block", "forward", surroundings, where);
    expectOne(out, "hidden", `${where}, forward`);
    if (!joint) return;
    const back = expect(bundle, joint, block.binding, "block", "joint", surroundings, where);
    gather(back, trained, where);
    if (blocks.slice(0, index).some((each) => kinds[each.kind].joint)) expectOne(back, "gradient", `${where}, joint`);
  });
  if (head) {
    const out = expect(bundle, head.graph, head.binding, "head", "head", new Map(), "head");
    expectOne(out, "loss", "head");
    expectOne(out, "gradient", "head");
    gather(out, trained, "head");
  }
  const missing = [...bundle.trained.keys()].sort().find((name) => !trained.has(name));
  if (missing) throw new GraphError(`no graph gives the gradient of ${missing}, which is trained`);
}

/** Check one graph's binding; return what its outputs are. */
function expect(bundle, graph, binding, into, outOf, surroundings, where) {
  for (const name of graph.inputs) {
    const source = binding.inputs.get(name);
    if (!source || !INTO[into].includes(role(source))) {
      throw new GraphError(`${where}: the input ${name} is bound to ${source ?? "nothing"}`);
    }
    if ((role(source) === "frozen") !== graph.weights.has(name)) {
      throw new GraphError(`${where}: the input ${name} is bound to ${source}, but its graph differs`);
    }
    expectSource(bundle, source, graph.values.get(name), surroundings, `${where}: the input ${name}`);
  }
  const found = new Map();
  for (const name of graph.outputs) {
    const place = binding.outputs.get(name);
    if (!place || !OUT_OF[outOf].includes(role(place)) || found.has(place)) {
      throw new GraphError(`${where}: the output ${name} is bound to ${place ?? "nothing"}`);
    }
    if (role(place) !== "surrounding") expectSource(bundle, place, graph.values.get(name), surroundings, `${where}: the output ${name}`);
    else expectNamed(place, where);
    found.set(place, graph.values.get(name));
  }
  return found;
}

function expectSource(bundle, source, value, surroundings, where) {
  expectNamed(source, where);
  const wanted = wantedOf(bundle, source, value, surroundings, where);
  if (wanted && (wanted.numbers !== value.numbers || !sameShape(wanted.shape, value.shape))) {
    throw new GraphError(`${where} is ${value.numbers} ${written(value.shape)}; ${source} is ${wanted.numbers} ` +
      written(wanted.shape));
  }
}

/** Return what a value of a role must be, or null where its role leaves it open. */
function wantedOf(bundle, source, value, surroundings, where) {
  const float = (...shape) => ({ numbers: "float", shape: shapeOf(...shape) });
  const int = (...shape) => ({ numbers: "int", shape: shapeOf(...shape) });
  const name = nameOf(source);
  switch (role(source)) {
    case "trained":
      if (!bundle.trained.has(name)) throw new GraphError(`${where} is bound to ${name}, which is not trained`);
      return float(...bundle.trained.get(name));
    case "hidden":
    case "gradient":
      return bundle.text ? float(1, N, bundle.dim) : float(N, bundle.tokens, bundle.dim);
    case "share":
    case "loss":
      return float();
    case "surrounding":
      if (!surroundings.has(source)) {
        throw new GraphError(`${where} is bound to the surrounding ${name}, which the embedding does not give`);
      }
      return surroundings.get(source);
    case "frozen":
      if (value.shape.some((size) => size.constant === null)) {
        throw new GraphError(`${where} is a frozen tensor of the shape ${written(value.shape)}, which hangs on n`);
      }
      return null;
    case "sample": {
      if (name === "input_ids") return int(1, N);
      const pixels = value.numbers === "float" && value.shape.length === 4 && value.shape[0].key === N.key;
      if (name !== "pixel_values" || !pixels) {
        throw new GraphError(`${where} is bound to ${source}; samples are input_ids or pixel_values`);
      }
      return null;
    }
    default: // labels
      if (!bundle.text) return int(N);
      return value.numbers === "int" && sameShape(value.shape, [ONE]) ? null : int(1, N);
  }
}

function expectNamed(source, where) {
  const named = NAMED.includes(role(source));
  if (named !== Boolean(nameOf(source))) {
    throw new GraphError(`${where} is bound to ${source}, ${named ? "without a" : "with a"} name`);
  }
}

function expectOne(found, wanted, where) {
  if (![...found.keys()].some((source) => role(source) === wanted)) throw new GraphError(`${where} gives no ${wanted}`);
}

function gather(found, before, where) {
  for (const source of found.keys()) {
    if (role(source) !== "trained") continue;
    if (before.has(nameOf(source))) throw new GraphError(`${where}: the gradient of ${nameOf(source)} is given twice`);
    before.add(nameOf(source));
  }
}
