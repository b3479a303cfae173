/**
 * A matrix product in WebAssembly SIMD, assembled here instruction by instruction: c += a b, a few rows by NR columns
 * at a time in registers. b comes packed in panels of NR columns; a and c are read where they lie.
 *
 * `product(a, aRow, aStep, b, c, cRow, rows, inner, panels)`: byte addresses of the first numbers, bytes from a row to
 * the next and, in a, from a number to the next; all sizes at least 1.
 */

/** Columns of a panel. */
export const NR = 8;
const MR = 6, VECTORS = NR / 4; // MR x NR sums, NR of b and one of a: fifteen registers of sixteen
const UNROLLED = 4; // numbers of a row of a, where they lie side by side

const I32 = 0x7f, V128 = 0x7b;
const LOOP = [0x03, 0x40], BLOCK = [0x02, 0x40], END = 0x0b;

/** @param {number} value @returns {number[]} LEB128 */
const unsigned = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)]);
const signed = (value) => (value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...signed(value >> 7)]);
const section = (id, body) => [id, ...unsigned(body.length), ...body];
const vector = (...items) => [...unsigned(items.length), ...items.flat()];
const text = (name) => vector(...new TextEncoder().encode(name));

const get = (at) => [0x20, at], set = (at) => [0x21, at], tee = (at) => [0x22, at];
const constant = (value) => [0x41, ...signed(value)];
const ADD = 0x6a, SUB = 0x6b, MUL = 0x6c, EQ = 0x46, SHR = 0x76, AND = 0x71, SELECT = 0x1b, LESS = 0x49;
const simd = (code) => [0xfd, ...unsigned(code)];
const load = (offset) => [...simd(0x00), 2, ...unsigned(offset)];
const splat = (offset) => [...simd(0x09), 2, ...unsigned(offset)];
const store = (offset) => [...simd(0x0b), 2, ...unsigned(offset)];
const bump = (at, by) => [...get(at), ...by, ADD, ...set(at)];
/** acc += a b; relaxed SIMD's one instruction for it was no faster, and differs from machine to machine. */
const accumulate = (acc, a, b) => [...get(acc), ...get(a), ...get(b), ...simd(0xe6), ...simd(0xe4), ...set(acc)];

/** @returns {number[]} the code of the function */
function body() {
  const [a, aRow, aStep, b, c, cRow, rows, inner, panels] = Array.from({ length: 9 }, (_, at) => at);
  const [row, at, left, pb] = [9, 10, 11, 12]; // first row, its place in a; numbers left; place in b
  const pa = Array.from({ length: MR }, (_, r) => 13 + r), pc = pa.map((p) => p + MR);
  const first = 13 + 2 * MR;
  const acc = (r, v) => first + r * VECTORS + v;
  const vb = Array.from({ length: VECTORS }, (_, v) => first + MR * VECTORS + v), va = vb.at(-1) + 1;
  const each = (f) => pa.flatMap((_, r) => vb.flatMap((__, v) => f(r, v)));

  /** `count` numbers of each row, `aStep` apart or side by side. */
  const numbers = (count, beside) => [
    ...Array.from({ length: count }, (_, u) => [
      ...vb.flatMap((v, k) => [...get(pb), ...load(4 * (u * NR + 4 * k)), ...set(v)]),
      ...pa.flatMap((p, r) => [
        ...get(p), ...splat(beside ? 4 * u : 0), ...set(va),
        ...vb.flatMap((v, k) => accumulate(acc(r, k), va, v)),
      ]),
    ]).flat(),
    ...pa.flatMap((p) => bump(p, beside ? constant(4 * count) : get(aStep))),
    ...bump(pb, constant(4 * NR * count)),
  ];
  const loop = (code) => [...BLOCK, ...get(left), 0x45, 0x0d, 0, ...LOOP, ...code,
    ...get(left), ...constant(1), SUB, ...tee(left), 0x0d, 0, END, END];
  // Past the last row the last one is computed again: all sums are read before any is written.
  const next = (list, by, r) => [...get(list[r - 1]), ...get(by), ...constant(0), ...get(row), ...constant(r), ADD,
    ...get(rows), LESS, SELECT, ADD, ...set(list[r])];
  const code = [
    ...LOOP,
    ...constant(0), ...set(row), ...get(a), ...set(at), ...get(c), ...set(pc[0]),
    ...LOOP,
    ...get(at), ...set(pa[0]),
    ...pa.slice(1).flatMap((_, r) => [...next(pa, aRow, r + 1), ...next(pc, cRow, r + 1)]),
    ...each((r, v) => [...get(pc[r]), ...load(16 * v), ...set(acc(r, v))]),
    ...get(b), ...set(pb),
    ...get(inner), ...constant(Math.log2(UNROLLED)), SHR, ...get(aStep), ...constant(4), EQ, MUL, ...set(left),
    ...loop(numbers(UNROLLED, true)),
    ...get(inner), ...get(inner), ...constant(UNROLLED - 1), AND, ...get(aStep), ...constant(4), EQ, 0x45, SELECT, ...set(left),
    ...loop(numbers(1, false)),
    ...each((r, v) => [...get(pc[r]), ...get(acc(r, v)), ...store(16 * v)]),
    ...bump(at, [...get(aRow), ...constant(MR), MUL]),
    ...bump(pc[0], [...get(cRow), ...constant(MR), MUL]),
    ...get(row), ...constant(MR), ADD, ...tee(row), ...get(rows), LESS, 0x0d, 0,
    END,
    ...bump(b, [...get(inner), ...constant(4 * NR), MUL]),
    ...bump(c, constant(4 * NR)),
    ...get(panels), ...constant(1), SUB, ...tee(panels), 0x0d, 0,
    END, END,
  ];
  const locals = vector([...unsigned(first - 9), I32], [...unsigned(va + 1 - first), V128]);
  return [...locals, ...code];
}

/** @returns {Uint8Array} the module */
function assemble() {
  const code = body();
  return Uint8Array.from([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, vector([0x60, ...vector(...new Array(9).fill(I32)), 0])),
    ...section(2, vector([...text("page"), ...text("memory"), 2, 0, 1])),
    ...section(3, vector(0)),
    ...section(7, vector([...text("product"), 0, 0])),
    ...section(10, vector([...unsigned(code.length), ...code])),
  ]);
}

/** @type {WebAssembly.Module | null | undefined} */
let compiled;

/**
 * Return the product over a memory, or null where the page may not compile (its Content-Security-Policy lacks
 * 'wasm-unsafe-eval') or the browser has no SIMD.
 * @param {WebAssembly.Memory} memory
 * @returns {((...args: number[]) => void) | null}
 */
export function wasmProduct(memory) {
  if (compiled === undefined) {
    compiled = null;
    try {
      const bytes = assemble();
      if (WebAssembly.validate(bytes)) compiled = new WebAssembly.Module(bytes);
    } catch (error) {
      if (!(error instanceof WebAssembly.CompileError || error instanceof EvalError)) throw error; // the page's policy
    }
  }
  return compiled && /** @type {any} */ (new WebAssembly.Instance(compiled, { page: { memory } }).exports.product);
}
