/**
 * Activations and their gradients, as `sflam.device.kernels.activations`: the same polynomials.
 *
 * Both forms of GELU are one: x (1 + tanh(x Q(x^2))) / 2. For `tanh` Q is a line (arXiv:1606.08415); for the exact one
 * a polynomial fitted so that |tanh(x Q(x^2)) - erf(x / sqrt 2)| < 6e-8 for every x.
 */

const LINE_0 = Math.sqrt(2 / Math.PI), LINE_1 = 0.044715 * LINE_0;
const Q0 = 0.7978849414604346, Q1 = 0.03633308457369512, Q2 = -3.259497531661081e-5, Q3 = -5.530619381742447e-5;
const Q4 = 3.964744438741682e-6, Q5 = -1.3226334145824746e-7, Q6 = 1.7561708012649291e-9;
const LARGEST_SQUARE = 64; // tanh(x Q(x^2)) is 1 well before; beyond, the powers of x would overflow
const DENSITY = 1 / Math.sqrt(2 * Math.PI);

/** 1 - 2 / (1 + exp(2 y)): in doubles, right to float32 for every y. @param {number} y */
export const tanh = (y) => 1 - 2 / (1 + Math.exp(2 * y));

/** @param {number} x */
export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** (1 + tanh(x Q(x^2))) / 2, the normal distribution function. @param {number} x */
function phi(x) {
  const s = Math.min(x * x, LARGEST_SQUARE);
  return sigmoid(2 * x * ((((((Q6 * s + Q5) * s + Q4) * s + Q3) * s + Q2) * s + Q1) * s + Q0));
}

/** Its approximation. @param {number} x */
const phiTanh = (x) => sigmoid(2 * x * (LINE_1 * Math.min(x * x, LARGEST_SQUARE) + LINE_0));

/** @param {number} x */
export const erf = (x) => 2 * phi(x * Math.SQRT2) - 1;

/** @param {boolean} approximate @returns {import("./cells.js").Cell} */
export const gelu = (approximate) => (approximate
  ? (o, oi, n, a, ai, as) => {
      for (let i = 0; i < n; i++, ai += as) o[oi + i] = a[ai] * phiTanh(a[ai]);
    }
  : (o, oi, n, a, ai, as) => {
      for (let i = 0; i < n; i++, ai += as) o[oi + i] = a[ai] * phi(a[ai]);
    });

/** grad (Phi(x) + x Phi'(x)). @param {boolean} approximate @returns {import("./cells.js").Cell} */
export const geluGrad = (approximate) => (approximate
  ? (o, oi, n, a, ai, as, b, bi, bs) => {
      for (let i = 0; i < n; i++, ai += as, bi += bs) {
        const x = b[bi], p = phiTanh(x), s = Math.min(x * x, LARGEST_SQUARE);
        o[oi + i] = a[ai] * p * (1 + 2 * (1 - p) * x * (3 * LINE_1 * s + LINE_0));
      }
    }
  : (o, oi, n, a, ai, as, b, bi, bs) => {
      for (let i = 0; i < n; i++, ai += as, bi += bs) {
        const x = b[bi];
        o[oi + i] = a[ai] * (phi(x) + x * DENSITY * Math.exp(-0.5 * x * x));
      }
    });

/** @type {import("./cells.js").Cell} */
export const silu = (o, oi, n, a, ai, as) => {
  for (let i = 0; i < n; i++, ai += as) o[oi + i] = a[ai] * sigmoid(a[ai]);
};

/** grad s (1 + x (1 - s)), s = sigmoid(x). @type {import("./cells.js").Cell} */
export const siluGrad = (o, oi, n, a, ai, as, b, bi, bs) => {
  for (let i = 0; i < n; i++, ai += as, bi += bs) {
    const x = b[bi], s = sigmoid(x);
    o[oi + i] = a[ai] * s * (1 + x * (1 - s));
  }
};
