import assert from "node:assert/strict";
import { given, sameBytes } from "./given.mjs";
import { batchesOfShares, roundBatches } from "../../src/sflam/web/static/batches.js";
import { Generator } from "../../src/sflam/web/static/random.js";
import { rate } from "../../src/sflam/web/static/schedule.js";
import { derive } from "../../src/sflam/web/static/seeds.js";
import { hex, sha256 } from "../../src/sflam/web/static/sha256.js";

for (const { bytes, wanted } of given.hashes) assert.equal(hex(sha256(bytes)), wanted);
for (const { seed, stream, indices, wanted } of given.seeds) {
  assert.equal(String(derive(BigInt(seed), stream, ...indices)), wanted);
}
for (const { seed, orders } of given.orders) {
  const random = new Generator(BigInt(seed));
  for (const wanted of orders) {
    const items = Array.from(wanted).sort((a, b) => a - b);
    sameBytes(random.permutation(items), wanted, `permutation of ${wanted.length} by ${seed}`);
  }
}
for (const { own, size, of, batches } of given.rounds) {
  const found = roundBatches(own, size, of);
  assert.equal(found.length, batches.length);
  found.forEach((batch, i) => sameBytes(batch, batches[i], `batch ${i}`));
}
for (const { own, shares, of, batches } of given.shared) {
  const found = batchesOfShares(own, shares, of);
  found.forEach((batch, i) => sameBytes(batch, batches[i], `share ${i}`));
}
for (const { own, shares, of } of given.wrong) {
  assert.throws(() => batchesOfShares(own, shares, of), { name: "ServeError" });
}
for (const { learn, moment, wanted } of given.rates) {
  const found = rate(learn, moment);
  assert.ok(Math.abs(found - wanted) <= 1e-14 * Math.abs(wanted) + 1e-20, `${found} is not ${wanted}`);
}
