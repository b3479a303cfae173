/** Where the numbers of a value lie: a part of a store with its own strides, and how parts are walked and copied. */

/**
 * `store.data` may be another array in another run; offset and strides count numbers.
 * @typedef {{store: {data: any}, offset: number, shape: number[], strides: number[]}} Strided
 */

/** @param {number[]} shape */
export const countIn = (shape) => shape.reduce((total, size) => total * size, 1);

/** @param {number[]} shape @returns {number[]} the strides of an array without gaps */
export function contiguous(shape) {
  const out = new Array(shape.length);
  for (let axis = shape.length - 1, below = 1; axis >= 0; below *= shape[axis--]) out[axis] = below;
  return out;
}

/** @param {Strided} x whether it has no gaps */
export function isContiguous({ shape, strides }) {
  for (let axis = shape.length - 1, below = 1; axis >= 0; below *= shape[axis--]) {
    if (shape[axis] !== 1 && strides[axis] !== below) return false;
  }
  return true;
}

/**
 * Return a view of `x`, or null where it must be a copy.
 * @param {string} kind
 * @param {Strided} x
 * @param {Record<string, any>} attributes sizes as numbers
 * @returns {Strided | null}
 */
export function viewOf(kind, x, attributes) {
  const { store, offset, shape, strides } = x;
  if (kind === "reshape") {
    const found = reshaped(x, attributes.shape);
    return found && { store, offset, shape: attributes.shape, strides: found };
  }
  if (kind === "transpose") {
    const { axes } = attributes;
    return { store, offset, shape: axes.map((a) => shape[a]), strides: axes.map((a) => strides[a]) };
  }
  if (kind === "expand") return { store, offset, shape: attributes.shape, strides: broadcastStrides(x, attributes.shape) };
  const { axis, start, stop, step } = attributes; // a slice
  return {
    store,
    offset: offset + start * strides[axis],
    shape: shape.with(axis, Math.ceil((stop - start) / step)),
    strides: strides.with(axis, strides[axis] * step),
  };
}

/** @param {Strided} x @param {number[]} shape @returns {number[]} strides of `x` broadcast to a shape */
export function broadcastStrides(x, shape) {
  const fresh = shape.length - x.shape.length;
  return shape.map((size, axis) => (axis < fresh || (x.shape[axis - fresh] === 1 && size !== 1) ? 0 : x.strides[axis - fresh]));
}

/** Every run of axes without gaps must be cut anew by itself. */
function reshaped(x, shape) {
  if (countIn(shape) === 0) return contiguous(shape);
  const runs = []; // [numbers in the run, stride of its last axis]
  let before = null;
  x.shape.forEach((size, axis) => {
    const stride = x.strides[axis];
    if (size === 1) return;
    if (before !== null && before === stride * size) runs[runs.length - 1] = [runs.at(-1)[0] * size, stride];
    else runs.push([size, stride]);
    before = stride;
  });
  const strides = [];
  let at = 0;
  for (const [total, stride] of runs) {
    const part = [];
    for (let count = 1; count !== total; count *= part.at(-1)) {
      if (at === shape.length || count > total) return null;
      part.push(shape[at++]);
    }
    strides.push(...contiguous(part).map((below) => below * stride));
  }
  for (; at < shape.length; at++) {
    if (shape[at] !== 1) return null;
    strides.push(1);
  }
  return strides;
}

/**
 * Return how to walk several arrays of one shape together: sizes of the loops, the innermost last, and for each array
 * its steps; axes that every array runs through without a gap are one loop.
 * @param {number[]} shape
 * @param {number[][]} strides of each array
 * @returns {{sizes: number[], steps: number[][]}}
 */
export function loops(shape, strides) {
  const sizes = [];
  const steps = strides.map(() => []);
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const last = sizes.length - 1;
    if (last >= 0 && strides.every((own, which) => steps[which][last] === own[axis] * size)) {
      sizes[last] *= size;
      steps.forEach((own, which) => (own[last] = strides[which][axis]));
    } else {
      sizes.push(size);
      steps.forEach((own, which) => own.push(strides[which][axis]));
    }
  });
  if (!sizes.length) {
    sizes.push(1);
    steps.forEach((own) => own.push(1));
  }
  return { sizes, steps };
}

/**
 * Call `inner` once for every run of the innermost loop, with where each array stands.
 * @param {{sizes: number[], steps: number[][]}} plan of `loops`
 * @param {number[]} starts of each array
 * @param {(places: number[], count: number) => void} inner
 */
export function walk({ sizes, steps }, starts, inner) {
  const depth = sizes.length - 1, count = sizes[depth];
  if (sizes.includes(0)) return;
  const places = [...starts], index = new Array(depth).fill(0);
  for (;;) {
    inner(places, count);
    let axis = depth - 1;
    for (; axis >= 0; axis--) {
      if (++index[axis] < sizes[axis]) {
        for (let which = 0; which < places.length; which++) places[which] += steps[which][axis];
        break;
      }
      index[axis] = 0;
      for (let which = 0; which < places.length; which++) places[which] -= steps[which][axis] * (sizes[axis] - 1);
    }
    if (axis < 0) return;
  }
}

/**
 * Return what copies `x` to `out`, of the same shape.
 * @param {Strided} out
 * @param {Strided} x
 * @returns {() => void}
 */
export function copier(out, x) {
  const plan = loops(out.shape, [out.strides, x.strides]);
  const [outStep, step] = plan.steps.map((steps) => steps.at(-1));
  return () => {
    const to = out.store.data, from = x.store.data;
    walk(plan, [out.offset, x.offset], ([o, a], count) => {
      if (step === 1 && outStep === 1 && count > 64) {
        to.set(from.subarray(a, a + count), o);
        return;
      }
      for (let i = 0; i < count; i++, o += outStep, a += step) to[o] = from[a];
    });
  };
}
