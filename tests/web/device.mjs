/**
 * The page's device in node, without a page: node device.mjs ADDRESS TOKEN '{"state": "FILE", "lose": 5}'
 *
 * `state` keeps what a browser's database would, `lose` drops every so many answers after they came.
 */

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { deserialize, serialize } from "node:v8";
import { Half } from "../../src/sflam/web/static/half.js";
import { Link } from "../../src/sflam/web/static/link/client.js";
import { TokenExchange } from "../../src/sflam/web/static/link/exchange.js";
import { described, fetched } from "../../src/sflam/web/static/link/job.js";
import { Client } from "../../src/sflam/web/static/link/loop.js";
import { addPictures } from "../../src/sflam/web/static/samples/files.js";
import { PictureSamples } from "../../src/sflam/web/static/samples/samples.js";
import { MemoryStore } from "../../src/sflam/web/static/store.js";

const [base, token, given = "{}"] = process.argv.slice(2);
const options = JSON.parse(given);

class FileStore extends MemoryStore {
  constructor(file) {
    super();
    this.file_ = file;
    if (existsSync(file)) this.records = deserialize(readFileSync(file));
  }

  async putState(device, state) {
    await super.putState(device, state);
    writeFileSync(`${this.file_}.new`, serialize(this.records));
    renameSync(`${this.file_}.new`, this.file_);
  }
}

let answers = 0;
async function losing(...request) {
  const answer = await fetch(...request);
  if (++answers % options.lose) return answer;
  await answer.arrayBuffer();
  throw new TypeError("the answer was lost");
}

async function main() {
  const link = new Link({ base, token, notify: console.log, fetch: options.lose ? losing : fetch });
  const store = options.state ? new FileStore(options.state) : new MemoryStore();
  const job = await described(link);
  const { page } = job;
  const samples = new PictureSamples(page.image);
  await addPictures(await link.call("GET", "/join/share"), samples, job.classes);
  const half = Half.open({
    graphs: await fetched(link, store, job.graphs.name, job.graphs.sha256),
    segment: await fetched(link, store, job.segment, job.files[job.segment]),
    learn: page.learn, cut: job.cut, task: job.task,
  });
  const seed = BigInt(page.seed);
  const place = { number: job.device, run: job.run, job: page.job, seed, sampling: page.sampling, buckets: page.buckets };
  const exchange = new TokenExchange(job.scheme, seed, job.device, half.dim, job.bits, job.bits_adapters);
  const report = (event) => event.kind === "step" || console.log(event.text ?? JSON.stringify(event));
  const client = new Client({ link, place, half, samples, learn: page.learn, exchange, store, report });
  console.log(`the job has ended; this device trained ${await client.run()} rounds`);
}

main().catch((error) => {
  console.log(`${error.name}: ${error.message}`);
  process.exitCode = 2;
});
