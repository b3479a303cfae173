/** The device itself, beside the page's own thread: it holds the samples, the half and the protocol loop. */

import { TokenExchange } from "./link/exchange.js";
import { Link } from "./link/client.js";
import { Client } from "./link/loop.js";
import { described, fetched } from "./link/job.js";
import { DataError, ServeError } from "./errors.js";
import { Half } from "./half.js";
import { addPictures, addRows, decoded } from "./samples/files.js";
import { PictureSamples, TokenSamples } from "./samples/samples.js";
import { openStore } from "./store.js";

const SHOWN = 40; // pictures that the page shows
const BUSY = 5000; // ms to wait for another page of this device to end

/** @type {Link} */
let link;
/** @type {import("./store.js").Store} */
let store;
/** @type {import("./link/job.js").ServedJob} */
let job;
/** @type {PictureSamples | TokenSamples} */
let samples;

/** @param {Record<string, any>} event */
function report(event) {
  postMessage(event);
}

/** @param {{token: string}} given: find out what the job is, and what this device has of it already */
async function open({ token }) {
  const base = new URL("../..", import.meta.url).href.slice(0, -1); // with the prefix of a proxy, where there is one
  link = new Link({ base, token, notify: (text) => report({ kind: "line", text }) });
  job = await described(link);
  store = await openStore();
  const { image, text } = job.page;
  const causal = job.task === "causal-lm";
  if (image) samples = new PictureSamples(image);
  else if (text) samples = new TokenSamples(text, causal);
  else throw new ServeError("the server names neither pictures nor texts; load the page again");
  samples.restore(await store.samples(job.device));
  const begun = (await store.state(job.device))?.run === job.run;
  const { device, cut, task, classes, scheme, bits, page } = job;
  const shown = { device, cut, task, classes, scheme, bits, page, causal, begun };
  report({ kind: "job", job: { ...shown, secure: self.isSecureContext, rounds: page.learn.rounds } });
  showSamples();
}

function showSamples() {
  const counts = job.classes.map((_, label) => samples.labels.filter((own) => own === label).length);
  const first = Math.max(0, samples.count - SHOWN);
  const pictures = samples instanceof PictureSamples ? samples.pictures.slice(first) : [];
  const { count, shared } = samples;
  report({ kind: "samples", count, counts, first, pictures, labels: samples.labels.slice(first), shared });
}

/** Keep the samples, and show them. */
async function changed() {
  await store.putSamples(job.device, samples.plain());
  showSamples();
}

/** @param {{files: File[], label: number}} given: pictures are of the class `label`; other files name their own */
async function addFiles({ files, label }) {
  for (const file of files) {
    const body = new Uint8Array(await file.arrayBuffer());
    if (samples instanceof TokenSamples) await addRows(body, file.name, samples, job.classes);
    else if (file.name.toLowerCase().endsWith(".npz")) await addPictures(body, samples, job.classes);
    else samples.add(await decoded(file), label);
  }
  await changed();
}

/** Take this device's share of the job's own data, where the server gives it out. */
async function addShare() {
  if (!(samples instanceof PictureSamples)) throw new DataError("the server gives out pictures only");
  await addPictures(await link.call("GET", "/join/share"), samples, job.classes);
  samples.shared = true;
  await changed();
}

/** @param {{picture: import("./samples/pixels.js").Picture, label: number}} given */
async function addPicture({ picture, label }) {
  if (samples instanceof PictureSamples) samples.add(picture, label);
  await changed();
}

/** @param {{index: number | null}} given: one sample, or all */
async function remove({ index }) {
  if (index === null) samples.restore(null);
  else if (samples instanceof PictureSamples) samples.remove(index);
  await changed();
}

/** Take part until the job ends. */
async function train() {
  if (!samples.count) throw new DataError("there are no samples yet; add some first");
  const { graphs, segment, files, cut, task, page } = job;
  const named = /** @type {{name: string, sha256: string}} */ (graphs);
  report({ kind: "line", text: "fetching this device's part of the model" });
  const half = Half.open({
    graphs: await fetched(link, store, named.name, named.sha256),
    segment: await fetched(link, store, segment, files[segment]),
    learn: page.learn,
    cut,
    task,
  });
  const seed = BigInt(page.seed);
  const place = { number: job.device, run: job.run, job: page.job, seed, sampling: page.sampling, buckets: page.buckets };
  const exchange = new TokenExchange(job.scheme, seed, job.device, half.dim, job.bits, job.bits_adapters);
  report({ kind: "line", text: `device ${job.device}: ${samples.count} samples, ${cut} ${cut === 1 ? "block" : "blocks"}` });
  const client = new Client({ link, place, half, samples, learn: page.learn, exchange, store, report });
  report({ kind: "ended", rounds: await client.run() });
}

/** As {@link train}, unless another page of this browser does already. */
async function start() {
  if (!navigator.locks) return train(); // no secure context: pages cannot see one another
  const signal = AbortSignal.timeout(BUSY); // a page that was reloaded gives its lock back a moment later
  try {
    await navigator.locks.request(`sflam device ${job.device}`, { signal }, () => train());
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    throw new ServeError(`another page of this browser is device ${job.device} already; use that one`);
  }
}

/** @type {Record<string, (given: any) => unknown>} */
const ACTIONS = { open, addFiles, addShare, addPicture, remove, start };

let last = Promise.resolve();

onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      await ACTIONS[data.do](data);
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      report({ kind: "failed", doing: data.do, name, text: message });
    }
  });
};
