/** The mini-batches of a device in a round: those of `sflam.data.batches` and `sflam.data.sampling`. */

import { ServeError } from "./errors.js";
import { Generator } from "./random.js";
import { derive } from "./seeds.js";

const POOL = 16; // mini-batches sorted by length together

/**
 * @param {Int32Array} order shuffled samples
 * @param {number} size rows of a mini-batch
 * @param {Int32Array} lengths of every sample of the dataset
 * @param {Generator} turns
 * @returns {Int32Array[]} one pass in mini-batches of similar length
 */
function buckets(order, size, lengths, turns) {
  const full = order.length - (order.length % size);
  const found = [];
  for (let start = 0; start < full; start += POOL * size) {
    const pool = order.slice(start, Math.min(start + POOL * size, full));
    const sorted = Int32Array.from(Array.from(pool).sort((a, b) => lengths[a] - lengths[b]));
    const places = turns.permutation(Array.from({ length: POOL }, (_, i) => i));
    const count = sorted.length / size;
    const inTurn = Array.from({ length: count }, (_, i) => i);
    inTurn.sort((a, b) => places[Math.floor((a * POOL) / count)] - places[Math.floor((b * POOL) / count)]);
    for (const i of inTurn) found.push(sorted.slice(i * size, (i + 1) * size));
  }
  if (full < order.length) found.push(order.slice(full));
  return found;
}

/**
 * @param {Int32Array} own the device's samples
 * @param {number} size rows of a mini-batch
 * @param {{seed: bigint | string, round: number, device: number, steps: number, epochs: number,
 *   lengths: Int32Array | null}} of where in the run, and how many: `steps`, or 0 for `epochs` passes
 * @returns {Int32Array[]} reshuffled on every pass; the last of a pass holds what is left over
 */
export function roundBatches(own, size, { seed, round, device, steps, epochs, lengths }) {
  const random = new Generator(derive(seed, "batches", round, device));
  const turns = new Generator(derive(seed, "buckets", round));
  const wanted = steps || epochs * Math.ceil(own.length / size);
  const drawn = [];
  while (drawn.length < wanted) {
    const order = random.permutation(own);
    if (lengths) drawn.push(...buckets(order, size, lengths, turns));
    else for (let at = 0; at < order.length; at += size) drawn.push(order.slice(at, at + size));
  }
  return drawn.slice(0, wanted);
}

/**
 * @param {Int32Array} own the device's samples
 * @param {unknown} shares its rows in each step of the fleet, as the server drew them
 * @param {{seed: bigint | string, round: number, device: number, steps: number, epochs: number}} of as above
 * @returns {Int32Array[]} mini-batches of these sizes, some perhaps empty
 */
export function batchesOfShares(own, shares, { seed, round, device, steps, epochs }) {
  if (!Array.isArray(shares) || !shares.every((rows) => Number.isSafeInteger(rows) && rows >= 0)) {
    throw new ServeError("the server's shares are no list of rows; use the page of the same server");
  }
  if (steps && shares.length !== steps) {
    throw new ServeError(`the server drew shares of ${shares.length} steps; learn.local_steps is ${steps}`);
  }
  const random = new Generator(derive(seed, "batches", round, device));
  let left = own.subarray(0, 0);
  const found = shares.map((rows, step) => {
    if (!left.length) left = random.permutation(own);
    if (rows > left.length) {
      throw new ServeError(
        `the server's share of step ${step} is ${rows} rows; ${left.length} of ${own.length} samples are left in this pass`,
      );
    }
    const batch = left.slice(0, rows);
    left = left.subarray(rows);
    return batch;
  });
  const total = shares.reduce((sum, rows) => sum + rows, 0);
  if (!steps && total !== epochs * own.length) {
    throw new ServeError(
      `the server's shares are ${total} rows; ${epochs} passes over ${own.length} samples were agreed`,
    );
  }
  return found;
}
