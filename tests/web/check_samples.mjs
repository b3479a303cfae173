import assert from "node:assert/strict";
import { given, sameBytes } from "./given.mjs";
import { pictureOf } from "../../src/sflam/web/static/samples/drawing.js";
import { addPictures, addRows } from "../../src/sflam/web/static/samples/files.js";
import { fitted, toPixels } from "../../src/sflam/web/static/samples/pixels.js";
import { PictureSamples, TokenSamples } from "../../src/sflam/web/static/samples/samples.js";

for (const { name, shape, pixels, spec, square, wanted } of given.pictures) {
  const [height, width, channels] = shape;
  const picture = { height, width, channels, pixels };
  sameBytes(fitted(picture, spec).pixels, square, `${name} fitted`);
  sameBytes(toPixels([picture], spec), wanted, name);
}
for (const { name, file, spec, classes, count, pixels, labels } of given.archives) {
  const samples = new PictureSamples(spec);
  assert.equal(await addPictures(file, samples, classes), count, name);
  const again = new PictureSamples(spec);
  again.restore(structuredClone(samples.plain()));
  const rows = again.rows(Int32Array.from(labels, (_, i) => i));
  sameBytes(rows.pixels, pixels, `${name} pixels`);
  sameBytes(rows.labels, labels, `${name} labels`);
}
for (const { name, file, spec, classes, causal, texts, labels } of given.texts) {
  const samples = new TokenSamples(spec, causal);
  await addRows(file, name, samples, classes);
  assert.deepEqual(samples.texts.map((ids) => Array.from(ids)), texts, name);
  assert.deepEqual(samples.rows([1, 0]).labels ?? null, causal ? null : Int32Array.from([labels[1], labels[0]]), name);
  assert.deepEqual(Array.from(samples.lengths), texts.map((ids) => ids.length), name);
}
for (const { name, file, kind, spec, classes, sentence } of given.refused) {
  const samples = kind === "text" ? new TokenSamples(spec, false) : new PictureSamples(spec);
  const adding = kind === "text" ? addRows(file, name, samples, classes) : addPictures(file, samples, classes);
  await assert.rejects(adding, (error) => error.name === "DataError" && new RegExp(sentence).test(error.message), name);
}
for (const { name, ink, width, wanted } of given.drawings) {
  const found = pictureOf(ink, width, 8);
  if (wanted) sameBytes(found.pixels, wanted, name);
  else assert.equal(found, null, name);
}
