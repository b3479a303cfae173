/** The page's device in node, without a page: node device.mjs ADDRESS TOKEN [HALF.js] [OPTION ...] */

import { readFileSync, existsSync, writeFileSync, renameSync } from "node:fs";
import { deserialize, serialize } from "node:v8";
import { Client } from "../../src/sflam/web/static/link/loop.js";
import { described, fetched } from "../../src/sflam/web/static/link/job.js";
import { Link } from "../../src/sflam/web/static/link/client.js";
import { TokenExchange } from "../../src/sflam/web/static/link/exchange.js";
import { addPictures } from "../../src/sflam/web/static/samples/files.js";
import { PictureSamples } from "../../src/sflam/web/static/samples/samples.js";
import { MemoryStore } from "../../src/sflam/web/static/store.js";

const [base, token, halfFile = "../../src/sflam/web/static/half.js"] = process.argv.slice(2);
const { Half } = await import(halfFile);
const link = new Link({ base, token, notify: console.log });
const store = new MemoryStore();
const job = await described(link);
const samples = new PictureSamples(job.page.image);
await addPictures(await link.call("GET", "/join/share"), samples, job.classes);
const half = Half.open({
  graphs: await fetched(link, store, job.graphs.name, job.graphs.sha256),
  segment: await fetched(link, store, job.segment, job.files[job.segment]),
  learn: job.page.learn, cut: job.cut, task: job.task,
});
const seed = BigInt(job.page.seed);
const exchange = new TokenExchange(job.scheme, seed, job.device, half.dim, job.bits);
const place = { number: job.device, run: job.run, seed, sampling: job.page.sampling, buckets: job.page.buckets };
const client = new Client({ link, place, half, samples, learn: job.page.learn, exchange, store, report: (e) => e.kind !== "step" && console.log(JSON.stringify(e)) });
console.log("ended", await client.run());
