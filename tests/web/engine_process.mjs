/** The engine of the page as a process: a line of JSON in, a line out; arrays are their type and base 64. */

import { createInterface } from "node:readline";
import { Arena, Engine } from "../../src/sflam/web/static/engine.js";
import { graphFrom, readBundle } from "../../src/sflam/web/static/graph.js";
import { Half } from "../../src/sflam/web/static/half.js";
import { parse } from "../../src/sflam/web/static/json.js";
import { Weights } from "../../src/sflam/web/static/safetensors.js";
import { SflamError } from "../../src/sflam/web/static/errors.js";

const KINDS = { float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int32: Int32Array };

function bytesOf(text) {
  const bytes = Buffer.from(text, "base64");
  return new Uint8Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

const unpacked = (_, value) =>
  value && typeof value === "object" && "array" in value ? new KINDS[value.array](bytesOf(value.bytes).buffer) : value;

function packed(_, value) {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Map) return Object.fromEntries(value);
  if (!ArrayBuffer.isView(value)) return value;
  const name = Object.keys(KINDS).find((kind) => value instanceof KINDS[kind]);
  return { array: name, bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
}

const engines = new Map();
const halves = new Map();
const step = ({ seed, headSeed, rate }) => ({ seed: BigInt(seed), headSeed: BigInt(headSeed), rate });

const ANSWERS = {
  run({ graph, inputs, n, seed, first, plain }) {
    const key = `${plain} ${graph}`;
    if (!engines.has(key)) {
      if (engines.size > 20) engines.clear();
      engines.set(key, new Engine(graphFrom(parse(graph)), { arena: new Arena({ plain }) }));
    }
    const engine = engines.get(key);
    const once = engine.run(inputs, n, BigInt(seed), first);
    const again = engine.run(inputs, n, BigInt(seed), first); // what the first run left behind must not show
    for (const [name, array] of once) {
      if (Buffer.compare(Buffer.from(array.buffer), Buffer.from(again.get(name).buffer))) throw new Error(`${name} changed`);
    }
    return once;
  },
  bundle: ({ body }) => ({ cut: readBundle(bytesOf(body)).cut }),
  tensor({ body, name, count, numbers }) {
    return { tensor: new Weights(bytesOf(body)).tensor(name, count, numbers) };
  },
  open({ name, graphs, segment, ...more }) {
    halves.set(name, Half.open({ graphs: bytesOf(graphs), segment: bytesOf(segment), ...more }));
    const { dim, trained, hasHead, text, causal } = halves.get(name);
    return { dim, trained, hasHead, text, causal };
  },
  call({ name, method, given }) {
    const found = halves.get(name)[method](...given);
    return { found: found ?? null };
  },
  forward: ({ name, at }) => ({ pieces: [...halves.get(name).forward(step(at))] }),
  finish: ({ name, at, last }) => halves.get(name).finish(step(at), last),
  backward({ name, at, gradient, pieces }) {
    let place = 0;
    const dim = halves.get(name).dim;
    const read = { read: (count) => gradient.slice(place, (place += count * dim)) };
    halves.get(name).backward(step(at), pieces ? read : gradient);
    return { gradient: halves.get(name).gradient(), values: halves.get(name).read() };
  },
  reload({ from, to }) {
    return { restored: halves.get(to).restore(halves.get(from).state()) };
  },
  time({ name, rows, at, gradient, steps }) {
    const half = halves.get(name), started = performance.now(), before = process.cpuUsage();
    for (let k = 0; k < steps; k++) {
      half.take(rows);
      for (const _ of half.forward(step(at)));
      half.backward(step(at), gradient);
    }
    const used = process.cpuUsage(before);
    return { wall: (performance.now() - started) / steps, cpu: (used.user + used.system) / 1000 / steps };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line, unpacked);
  let answer;
  try {
    answer = ANSWERS[request.ask](request);
  } catch (error) {
    answer = error instanceof SflamError ? { error: error.name, message: error.message } : { bug: error.stack };
  }
  process.stdout.write(`${JSON.stringify(answer, packed)}\n`);
}
