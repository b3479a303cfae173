import assert from "node:assert/strict";
import { given, sameBytes } from "./given.mjs";
import { decode, encode } from "../../src/sflam/web/static/codec/bodies.js";
import { TokenExchange } from "../../src/sflam/web/static/link/exchange.js";
import { decodeTokens, quantizer } from "../../src/sflam/web/static/codec/quantizers.js";

for (const { name, scheme, bits, dim, seed, x, codes, side, decoded } of given.tokens) {
  const packed = quantizer(scheme).encode(x, dim, bits, BigInt(seed));
  sameBytes(packed.side, side, `${name} side`);
  sameBytes(packed.codes, codes, `${name} codes`);
  sameBytes(decodeTokens({ ...packed, codes, side }), decoded, `${name} decoded`);
}
for (const { name, dim, bits, messages } of given.remembering) {
  let left;
  for (const { x, seed, codes, after } of messages) {
    const found = quantizer("topk").encodeAfter(left, x, dim, bits, BigInt(seed));
    sameBytes(found.packed.codes, codes, `${name} codes`);
    sameBytes(found.left, after, `${name} left`);
    left = found.left;
  }
}
for (const { name, scheme, bits, dim, x } of given.refused) {
  assert.throws(() => quantizer(scheme).encode(x, dim, bits, 1n), { name: "NotFiniteError" }, name);
}
for (const { name, message, tokens, body } of given.bodies) {
  sameBytes(encode({ ...message, tokens }), body, name);
}
for (const { name, bits, seed, values, start, grid, body } of given.changes) {
  const exchange = new TokenExchange("rotated", BigInt(seed), 2, 8, [4, 4], bits);
  sameBytes(encode(exchange.trained(4, 30, values, start, grid)), body, name);
}
for (const { name, kind, body, message, decoded } of given.answers) {
  const found = decode(body, kind);
  for (const [key, value] of Object.entries(message)) assert.deepEqual(found[key], value, `${name} ${key}`);
  if (decoded) sameBytes(found.tokens ? decodeTokens(found.tokens) : found.values, decoded, name);
  for (const [place, byte] of given.spoilt) {
    const spoilt = body.slice(0, place < 0 ? place : undefined);
    if (place >= 0) spoilt[place] ^= byte;
    assert.throws(() => decode(spoilt, kind), { name: "WireError" }, `${name} spoilt at ${place}`);
  }
}
console.log(given.tokens.length);
