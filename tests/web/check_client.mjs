import assert from "node:assert/strict";
import { Refused, ServeError } from "../../src/sflam/web/static/errors.js";
import { Link } from "../../src/sflam/web/static/link/client.js";
import { MemoryStore } from "../../src/sflam/web/static/store.js";

/** A link to a server that gives these answers, in order; what it asked, how long it paused, what it reported. */
function linkTo(answers, options = {}) {
  const asked = [], pauses = [], lines = [];
  const link = new Link({
    base: "https://host/prefix", token: "sflam_x", ...options,
    notify: (line) => lines.push(line),
    sleep: async (seconds) => void pauses.push(seconds),
    fetch: async (url, request) => {
      asked.push([url, request]);
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer instanceof Error) throw answer;
      const [status, body = null, headers = {}] = answer;
      return new Response(body, { status, headers });
    },
  });
  return { link, asked, pauses, lines };
}

const lost = new TypeError("Failed to fetch");
const busy = [503, '{"error": "going down"}', { "Retry-After": "0.2" }];
const computing = [503, '{"error": "computing"}', { "Retry-After": "0" }];

// Losses and a busy server are waited for, longer each time, and reported once; the same body is sent again.
const body = new Uint8Array([1, 2, 3]);
let { link, asked, pauses, lines } = linkTo([lost, lost, [502, "<html>"], busy, [504], computing, [200, "yes"]]);
assert.equal(new TextDecoder().decode(await link.call("POST", "/v1/x", body, { "Sflam-Tokens": "7" })), "yes");
assert.equal(asked.length, 7);
for (const [url, request] of asked) {
  assert.equal(url, "https://host/prefix/v1/x");
  assert.equal(request.body, body);
  assert.deepEqual(request.headers, { Authorization: "Bearer sflam_x", "Sflam-Tokens": "7" });
}
assert.deepEqual(lines, ["no answer from the server (Failed to fetch); trying again"]);
[0.1, 0.2, 0.4].forEach((most, i) => assert.ok(pauses[i] >= most / 2 && pauses[i] <= most, `pause ${pauses[i]}`));
assert.deepEqual([pauses[3], pauses[5]], [0.2, 0]);

// A refusal is final, and says why.
({ link, asked } = linkTo([[403, '{"error": "the token of\\n phone was revoked"}']]));
await assert.rejects(link.call("GET", "/v1/job"), (error) =>
  error instanceof Refused && error.status === 403 && error.message === "the token of phone was revoked");
assert.equal(asked.length, 1);
({ link } = linkTo([[404, "<html>nothing here</html>"]]));
await assert.rejects(link.call("GET", "/v1/job"), /GET \/v1\/job is answered by status 404, and not by sflam/);

// A proxy's limit can be raised while devices wait; without patience it is named.
({ link, lines } = linkTo([[413, "<html>"], [200, ""]]));
await link.call("POST", "/v1/x", body);
assert.match(lines[0], /refuses a body of 3 bytes as too large \(413\); raise its limit/);
({ link } = linkTo([[413, "<html>"]], { patience: -1 }));
await assert.rejects(link.call("POST", "/v1/x", body), /raise its limit/);
({ link } = linkTo([lost], { patience: -1 }));
await assert.rejects(link.call("GET", "/v1/x"), (error) => error instanceof ServeError && /is it up/.test(error.message));

// An answer that ends early is asked for again; one beyond its bound is refused.
({ link, asked } = linkTo([[200, "abc", { "Content-Length": "9" }], [200, "abc", { "Content-Length": "3" }]]));
assert.equal((await link.call("GET", "/v1/x")).length, 3);
assert.equal(asked.length, 2);
({ link } = linkTo([[200, "abcd"]]));
await assert.rejects(link.call("GET", "/v1/x", undefined, {}, 3), /more than 3 bytes/);
({ link } = linkTo([[200, "no json"]]));
await assert.rejects(link.json("GET", "/v1/x"), /no JSON/);

// A store gives back copies.
const store = new MemoryStore();
const state = { left: new Map([[3, new Float32Array([1])]]) };
await store.putState(1, state);
state.left.get(3)[0] = 2;
assert.equal((await store.state(1)).left.get(3)[0], 1);
