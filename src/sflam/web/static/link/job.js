/** A served job as the page finds it: what the server says of it, checked, and its files, fetched once. */

import { ServeError, WireError } from "../errors.js";
import { hex, sha256 } from "../sha256.js";
import { expectOffered } from "./offers.js";

const PROTOCOL = 1;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/**
 * @typedef {object} ServedJob what `GET /v1/job` and `GET /join/job` give
 * @property {string} run
 * @property {number} device
 * @property {number} cut
 * @property {[number, number]} bits
 * @property {number} bits_adapters per adapter value up; 32 for floats
 * @property {string} task
 * @property {string[]} classes
 * @property {string} scheme
 * @property {string} segment
 * @property {Record<string, string>} files
 * @property {{name: string, sha256: string} | null} graphs
 * @property {string | null} graphs_refused
 * @property {PageJob} page
 */

/**
 * @typedef {object} PageJob
 * @property {string} run the run's name, as it is when the round is asked for
 * @property {string} job the job's digest, likewise
 * @property {string} seed
 * @property {Record<string, string>} needs
 * @property {Record<string, any>} learn
 * @property {string} sampling
 * @property {boolean} buckets
 * @property {{size: number, channels: number, mean: number[], std: number[], resample: number} | null} image
 * @property {{vocabulary: number, most: number} | null} text
 * @property {number | null} share samples of this device's part of the job's data, where the server gives it out
 * @property {[number, number] | null} drawn height and width of the job's pictures, where they can be drawn
 */

/**
 * @param {import("./client.js").Link} link
 * @returns {Promise<ServedJob>} throws ServeError where this page cannot take part
 */
export async function described(link) {
  const served = await link.json("GET", "/v1/job");
  if (served?.protocol !== PROTOCOL) {
    throw new ServeError(
      `the server (sflam ${String(served?.version).slice(0, 30)}) speaks protocol ${String(served?.protocol).slice(0, 10)}, ` +
        `this page ${PROTOCOL}; load the page again`,
    );
  }
  const page = await link.json("GET", "/join/job");
  if (page.run !== served.run) throw new ServeError("the server changed its job meanwhile; load the page again");
  expectOffered(page.needs);
  if (!served.graphs) {
    const reason = served.graphs_refused ?? "an older server";
    throw new ServeError(`this job gives nothing to a browser (${reason}); join with sflam join`);
  }
  for (const [name, sha] of [...Object.entries(served.files), [served.graphs.name, served.graphs.sha256]]) {
    if (!NAME.test(name) || !SHA256.test(sha)) {
      throw new WireError(`the server names a file ${name.slice(0, 60)}; names are letters, digits, '.', '_' and '-'`);
    }
  }
  return { ...served, page };
}

/**
 * @param {import("./client.js").Link} link
 * @param {import("../store.js").Store} store keeps what was downloaded
 * @param {string} name
 * @param {string} wanted its SHA-256
 * @returns {Promise<Uint8Array>} the file
 */
export async function fetched(link, store, name, wanted) {
  const kept = await store.file(wanted);
  if (kept && hex(sha256(kept)) === wanted) return kept;
  const body = await link.call("GET", `/v1/files/${name}`);
  if (hex(sha256(body)) !== wanted) throw new ServeError(`${name} came damaged; load the page again`);
  await store.putFile(wanted, body);
  return body;
}
