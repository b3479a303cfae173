/**
 * Products of matrices in blocks that stay in the cache: b is packed in panels, a and c are used where they lie.
 *
 * Everything happens in one memory, which the values of the graphs share; a matrix that lies elsewhere (a frozen one on
 * the left) is copied in by blocks.
 */

import { RunError } from "../errors.js";
import { plainProduct } from "./plain.js";
import { NR, wasmProduct } from "./wasm.js";

const INNER = 256, COLUMNS = 256, ROWS = 240; // of a block: a panel of b fits the first cache, a block of a the second
const PAGE = 65536;
const PACKED_A = INNER * COLUMNS, PACKED_C = PACKED_A + ROWS * INNER;
/** Bytes at the start of a memory that belong to the products. */
export const SCRATCH_BYTES = Math.ceil((4 * (PACKED_C + ROWS * NR)) / PAGE) * PAGE;

/**
 * A matrix: its numbers, the first, from a row to the next, from a column to the next.
 * @typedef {{data: Float32Array, offset: number, row: number, column: number}} Matrix
 */

/** One memory with the products in it. */
export class Memory {
  /** @param {boolean} [plain] whether to do without WebAssembly */
  constructor(plain = false) {
    this._memory = new WebAssembly.Memory({ initial: SCRATCH_BYTES / PAGE });
    this._views();
    this._product = (plain ? null : wasmProduct(this._memory)) ?? plainProduct(() => this.float.data);
  }

  /** The stores of the memory, by kind of number: one object each, whose `data` changes when it grows. */
  _views() {
    const { buffer } = this._memory;
    const renewed = (store, data) => Object.assign(store ?? {}, { data });
    this.float = renewed(this.float, new Float32Array(buffer));
    this.int = renewed(this.int, new Float64Array(buffer));
    this.bool = renewed(this.bool, new Uint8Array(buffer));
  }

  /** Hold at least so many bytes beyond the scratch; RunError where there is no room. @param {number} nbytes */
  reserve(nbytes) {
    const missing = SCRATCH_BYTES + nbytes - this._memory.buffer.byteLength;
    if (missing <= 0) return;
    try {
      this._memory.grow(Math.ceil(missing / PAGE));
    } catch {
      throw new RunError(`this step needs ${Math.ceil(nbytes / 1e6)} MB, which the browser does not give; take fewer or ` +
        "shorter rows, or another device");
    }
    this._views();
  }

  /**
   * out += a b.
   * @param {number} out place of the first number in the memory
   * @param {number} outRow from a row to the next
   * @param {Matrix} a [rows, inner]
   * @param {Matrix} b [inner, columns]
   */
  product(out, outRow, a, b, rows, inner, columns) {
    const f = this.float.data;
    if (!rows || !columns) return;
    for (let k = 0; k < inner; k += INNER) {
      const depth = Math.min(INNER, inner - k);
      for (let j = 0; j < columns; j += COLUMNS) {
        const width = Math.min(COLUMNS, columns - j);
        pack(f, b, k, j, depth, width);
        for (let i = 0; i < rows; i += ROWS) {
          const height = Math.min(ROWS, rows - i);
          this._block(f, a, i, k, out + i * outRow + j, outRow, height, depth, width);
        }
      }
    }
  }

  /** @private One block: whole panels where they lie, the last columns through the scratch. */
  _block(f, a, i, k, out, outRow, height, depth, width) {
    let from = a.offset + i * a.row + k * a.column, row = a.row, step = a.column;
    if (a.data !== f) {
      for (let r = 0; r < height; r++) {
        for (let c = 0; c < depth; c++) f[PACKED_A + r * depth + c] = a.data[from + r * row + c * step];
      }
      [from, row, step] = [PACKED_A, depth, 1];
    }
    const whole = Math.floor(width / NR), rest = width - whole * NR;
    if (whole) this._product(4 * from, 4 * row, 4 * step, 0, 4 * out, 4 * outRow, height, depth, whole);
    if (!rest) return;
    const last = out + whole * NR;
    for (let r = 0; r < height; r++) for (let c = 0; c < rest; c++) f[PACKED_C + r * NR + c] = f[last + r * outRow + c];
    this._product(4 * from, 4 * row, 4 * step, 4 * whole * NR * depth, 4 * PACKED_C, 4 * NR, height, depth, 1);
    for (let r = 0; r < height; r++) for (let c = 0; c < rest; c++) f[last + r * outRow + c] = f[PACKED_C + r * NR + c];
  }
}

/** Write a block of b in panels of NR columns, zeros past the last; to the start of the memory. */
function pack(f, { data, offset, row, column }, k, j, depth, width) {
  let from = offset + k * row + j * column, to = 0;
  for (let left = width; left >= NR; left -= NR, from += NR * column, to += NR * depth) panel(f, to, data, from, row, column, depth);
  const rest = width % NR;
  if (!rest) return;
  f.fill(0, to, to + NR * depth);
  for (let d = 0; d < depth; d++) for (let c = 0; c < rest; c++) f[to + d * NR + c] = data[from + d * row + c * column];
}

/** One whole panel: all its columns side by side, so that writes follow one another. */
function panel(f, to, data, from, row, column, depth) {
  const c1 = column, c2 = 2 * column, c3 = 3 * column, c4 = 4 * column, c5 = 5 * column, c6 = 6 * column, c7 = 7 * column;
  for (let d = 0; d < depth; d++, from += row, to += NR) {
    f[to] = data[from];
    f[to + 1] = data[from + c1];
    f[to + 2] = data[from + c2];
    f[to + 3] = data[from + c3];
    f[to + 4] = data[from + c4];
    f[to + 5] = data[from + c5];
    f[to + 6] = data[from + c6];
    f[to + 7] = data[from + c7];
  }
}
