/** The product of `wasm.js` in plain JavaScript, for pages that may not compile and browsers without SIMD. */

import { NR } from "./wasm.js";

const HALF = NR / 2;

/**
 * Return c += a b over a memory; the arguments are those of `wasm.js`.
 * @param {() => Float32Array} memory
 */
export const plainProduct = (memory) => (a, aRow, aStep, b, c, cRow, rows, inner, panels) => {
  const f = memory();
  [a, aRow, aStep, b, c, cRow] = [a >> 2, aRow >> 2, aStep >> 2, b >> 2, c >> 2, cRow >> 2];
  for (let panel = 0; panel < 2 * panels; panel++) {
    const from = b + (panel >> 1) * inner * NR + (panel & 1) * HALF, to = c + panel * HALF;
    let row = 0;
    for (; row + 2 <= rows; row += 2) two(f, a + row * aRow, aRow, aStep, from, to + row * cRow, cRow, inner);
    if (row < rows) one(f, a + row * aRow, aStep, from, to + row * cRow, inner);
  }
};

/** Two rows by four columns: eight sums stay in registers. */
function two(f, a, aRow, aStep, b, c, cRow, inner) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
  for (let k = 0, x = a, y = a + aRow, at = b; k < inner; k++, x += aStep, y += aStep, at += NR) {
    const u = f[x], v = f[y], b0 = f[at], b1 = f[at + 1], b2 = f[at + 2], b3 = f[at + 3];
    s0 += u * b0;
    s1 += u * b1;
    s2 += u * b2;
    s3 += u * b3;
    t0 += v * b0;
    t1 += v * b1;
    t2 += v * b2;
    t3 += v * b3;
  }
  f[c] += s0;
  f[c + 1] += s1;
  f[c + 2] += s2;
  f[c + 3] += s3;
  c += cRow;
  f[c] += t0;
  f[c + 1] += t1;
  f[c + 2] += t2;
  f[c + 3] += t3;
}

function one(f, a, aStep, b, c, inner) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let k = 0, at = b; k < inner; k++, a += aStep, at += NR) {
    s0 += f[a] * f[at];
    s1 += f[a] * f[at + 1];
    s2 += f[a] * f[at + 2];
    s3 += f[a] * f[at + 3];
  }
  f[c] += s0;
  f[c + 1] += s1;
  f[c + 2] += s2;
  f[c + 3] += s3;
}
