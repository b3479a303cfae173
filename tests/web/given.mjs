/** What a check is given, and how it compares. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const KINDS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array,
  float64: Float64Array,
};

/** The JSON of the first argument, its arrays as typed arrays. */
export const given = JSON.parse(readFileSync(process.argv[2], "utf8"), (_, value) => {
  if (!value || typeof value !== "object" || !("array" in value)) return value;
  const bytes = Buffer.from(value.bytes, "base64");
  return new KINDS[value.array](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
});

/** Fail unless two typed arrays have the same bytes. */
export function sameBytes(found, wanted, what) {
  assert.equal(found.constructor, wanted.constructor, what);
  assert.equal(found.length, wanted.length, what);
  const [a, b] = [found, wanted].map((each) => new Uint8Array(each.buffer, each.byteOffset, each.byteLength));
  const at = a.findIndex((byte, i) => byte !== b[i]);
  assert.equal(at, -1, `${what}: byte ${at} differs`);
}
