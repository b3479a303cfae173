/**
 * Operations along one axis of whole rows: softmax, LayerNorm, and their gradients; operands without gaps.
 *
 * Each result may lie in the memory of the first operand: a place is read before it is written. Sums are doubles.
 */

/**
 * The rows of an array along an axis: `outer` times `inner` rows of `size` numbers that lie `inner` apart.
 * @param {number[]} shape
 * @param {number} axis
 */
function rowsOf(shape, axis) {
  let outer = 1, inner = 1;
  for (let at = 0; at < axis; at++) outer *= shape[at];
  for (let at = axis + 1; at < shape.length; at++) inner *= shape[at];
  return { outer, inner, size: shape[axis] };
}

/** Call `row(first place, step, size)` for every row. */
function each(shape, axis, row) {
  const { outer, inner, size } = rowsOf(shape, axis);
  if (!size) return;
  for (let o = 0; o < outer; o++) for (let i = 0; i < inner; i++) row(o * size * inner + i, inner, size);
}

function largest(x, at, step, size) {
  let most = -Infinity;
  for (let i = 0; i < size; i++) most = Math.max(most, x[at + i * step]);
  return most;
}

/** exp(x - max) / sum. */
export function softmax([out, oi], [x, xi], shape, { axis }) {
  each(shape, axis, (at, step, size) => {
    const most = largest(x, xi + at, step, size);
    let sum = 0;
    for (let i = 0, o = oi + at, a = xi + at; i < size; i++, o += step, a += step) {
      const power = Math.exp(x[a] - most);
      out[o] = power;
      sum += power;
    }
    const scale = 1 / sum;
    for (let i = 0, o = oi + at; i < size; i++, o += step) out[o] *= scale;
  });
}

/** out (grad - sum(grad out)). */
export function softmaxGrad([out, oi], [grad, gi], [result, ri], shape, { axis }) {
  each(shape, axis, (at, step, size) => {
    let sum = 0;
    for (let i = 0, g = gi + at, r = ri + at; i < size; i++, g += step, r += step) sum += grad[g] * result[r];
    for (let i = 0, o = oi + at, g = gi + at, r = ri + at; i < size; i++, o += step, g += step, r += step) {
      out[o] = result[r] * (grad[g] - sum);
    }
  });
}

/** x - max - log(sum(exp(x - max))). */
export function logSoftmax([out, oi], [x, xi], shape, { axis }) {
  each(shape, axis, (at, step, size) => {
    const most = largest(x, xi + at, step, size);
    let sum = 0;
    for (let i = 0; i < size; i++) sum += Math.exp(x[xi + at + i * step] - most);
    const shift = most + Math.log(sum);
    for (let i = 0; i < size; i++) out[oi + at + i * step] = x[xi + at + i * step] - shift;
  });
}

/** grad - exp(out) sum(grad). */
export function logSoftmaxGrad([out, oi], [grad, gi], [result, ri], shape, { axis }) {
  each(shape, axis, (at, step, size) => {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += grad[gi + at + i * step];
    for (let i = 0; i < size; i++) {
      const place = at + i * step;
      out[oi + place] = grad[gi + place] - Math.exp(result[ri + place]) * sum;
    }
  });
}

/** (x - mean) rstd w + b over the last axis; mean and rstd = 1 / sqrt(variance + eps) are kept. */
export function layerNorm([[out, oi], [means, mi], [scales, si]], [x, xi], [w, wi], [b, bi], shape, { eps }) {
  const width = shape.at(-1), rows = width ? shape.slice(0, -1).reduce((a, c) => a * c, 1) : 0;
  for (let row = 0; row < rows; row++) {
    const from = xi + row * width, to = oi + row * width;
    let mean = 0, square = 0;
    for (let i = 0; i < width; i++) mean += x[from + i];
    mean /= width;
    for (let i = 0; i < width; i++) square += (x[from + i] - mean) * (x[from + i] - mean);
    const scale = 1 / Math.sqrt(square / width + eps);
    means[mi + row] = mean;
    scales[si + row] = scale;
    for (let i = 0; i < width; i++) out[to + i] = (x[from + i] - mean) * scale * w[wi + i] + b[bi + i];
  }
}

/** rstd (g - mean(g) - y mean(g y)) over the last axis, with y = (x - mean) rstd and g = grad w. */
export function layerNormGrad([out, oi], [grad, gi], [x, xi], [means, mi], [scales, si], [w, wi], shape) {
  const width = shape.at(-1), rows = width ? shape.slice(0, -1).reduce((a, c) => a * c, 1) : 0;
  for (let row = 0; row < rows; row++) {
    const g0 = gi + row * width, x0 = xi + row * width, o0 = oi + row * width;
    const mean = means[mi + row], scale = scales[si + row];
    let sum = 0, product = 0;
    for (let i = 0; i < width; i++) {
      const g = grad[g0 + i] * w[wi + i];
      sum += g;
      product += g * (x[x0 + i] - mean);
    }
    sum /= width;
    product *= (scale * scale) / width;
    for (let i = 0; i < width; i++) out[o0 + i] = scale * (grad[g0 + i] * w[wi + i] - sum - (x[x0 + i] - mean) * product);
  }
}
