/**
 * A device's life at a served job: rounds, steps, faults, and what it writes down; that of `sflam.link.loop`.
 *
 * A page that is closed or reloaded at any instant goes on where its state says: trained values, optimiser, what a
 * quantizer remembers, and the place in the round, written after every step.
 */

import { batchesOfShares, roundBatches } from "../batches.js";
import { decode, encode } from "../codec/bodies.js";
import { DOWN, HEAD_DOWN, HEAD_UP, UP } from "../codec/dither.js";
import { HEADER_BYTES, mostAdapterBytes } from "../codec/sizes.js";
import { Refused, ServeError, shown, WireError } from "../errors.js";
import { rate } from "../schedule.js";
import { derive } from "../seeds.js";
import { FIRST_PAUSE, LONGEST_PAUSE } from "./client.js";

const QUICK = 500; // ms in which an answer without anything to do is quick
const FREE = 4; // how many such in a row are asked for at once

/**
 * @typedef {object} Place
 * @property {number} number of the device
 * @property {string} run name of the run
 * @property {string} job digest of the job
 * @property {bigint} seed of the run
 * @property {string} sampling `data.sampling`
 * @property {boolean} buckets whether mini-batches are of similar lengths
 */

/** One device and its round. */
export class Client {
  /**
   * @param {object} given
   * @param {import("./client.js").Link} given.link the way to the server
   * @param {Place} given.place what it is in the fleet
   * @param {import("../half.js").Half} given.half its part of the model
   * @param {import("../samples/samples.js").Samples} given.samples what it trains on
   * @param {Record<string, any>} given.learn how a round is run
   * @param {import("./exchange.js").TokenExchange} given.exchange how what crosses the cut becomes bytes
   * @param {import("../store.js").Store} given.store keeps its state
   * @param {(event: Record<string, any>) => void} [given.report] receives rounds, steps and lines
   */
  constructor({ link, place, half, samples, learn, exchange, store, report = () => {} }) {
    Object.assign(this, { link, place, half, samples, learn, exchange, store, report });
    this.round = this.attempt = -1;
    this.step = 0;
    this.loss = 0;
    /** What the optimiser remembered when the round began, with `learn.state = "keep"`. */
    this.begin = null;
    /** @type {Map<number, Float32Array>} what the quantizer had left out when the round began */
    this.leftOut = new Map();
    /** The adapters that the round began with, where their change is what goes up. */
    this.start = new Float32Array(0);
    /** The grids that came with them, where all devices have the same. */
    this.grid = new Uint16Array(0);
  }

  /** @returns {Promise<number>} the rounds trained once the run has ended */
  async run() {
    await this.#restore();
    let rounds = 0;
    let after = -1;
    let unknown = true;
    let quick = 0;
    for (;;) {
      if (unknown) await this.#hello();
      const asked = performance.now();
      const now = await this.link.json("GET", after >= 0 ? `/v1/round?after=${after}` : "/v1/round");
      this.#expectSameJob(now);
      unknown = !now.known;
      const open = now.phase === "open";
      this.report({ kind: "phase", phase: now.phase, round: now.round, seated: now.seated, delivered: now.delivered });
      if (now.phase === "ended") return rounds;
      if (!open || !now.seated || now.delivered || unknown) {
        after = Math.max(after, open ? now.attempt : 0);
        quick = performance.now() - asked < QUICK ? quick + 1 : 0;
        // A server that has nothing to do and does not hold the answer back.
        if (quick > FREE) await this.link.sleep(Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (quick - FREE - 1)));
        continue;
      }
      quick = 0;
      try {
        this.exchange.bits = now.bits ?? this.exchange.bits;
        rounds += Number(await this.#round(now));
      } catch (refused) {
        if (!(refused instanceof Refused) || refused.status !== 409) throw refused;
        this.#line(`round ${now.round + 1}: ${refused.message}`);
      }
      after = now.attempt;
    }
  }

  /** @param {any} now what the server reports of the round; another job than the one this page took up is an error */
  #expectSameJob({ run, job }) {
    const { place } = this;
    if (run === place.run && job === place.job) return;
    const what = run === place.run ? "the server's job was changed" : `the server now has run ${shown(run)}`;
    throw new ServeError(`${what}; load this page again to take part`);
  }

  /** Let the server know of this device, now or when the round it is missed in is over. */
  async #hello() {
    try {
      await this.link.json("POST", "/v1/session", { samples: this.samples.count });
    } catch (refused) {
      if (!(refused instanceof Refused) || refused.status !== 409) throw refused;
      this.#line(refused.message);
      await this.link.sleep(1);
    }
  }

  /** @param {any} now what the server reports of an open round @returns {Promise<boolean>} whether it was delivered */
  async #round(now) {
    const { round, attempt, exchange } = now;
    const batches = this.#batches(now);
    const at = `/v1/rounds/${round}/${attempt}`;
    if (this.round !== round || this.attempt !== attempt) {
      if (exchange) {
        this.#line(`round ${round + 1} goes on without this device, which has lost its part of it`);
        return false;
      }
      const most = mostAdapterBytes(this.half.trained);
      await this.#open(round, attempt, await this.link.call("GET", `${at}/adapters`, undefined, {}, most));
    }
    while (this.step < batches.length) {
      const batch = batches[this.step];
      if (batch.length) await this.#train(at, batch, batches.length);
      this.step++;
      await this.#save();
    }
    await this.#deliver(at, round, batches);
    return true;
  }

  /** @param {any} now @returns {Int32Array[]} the samples of every step; none in some, where the server draws shares */
  #batches(now) {
    const { place, learn, samples } = this;
    const own = Int32Array.from({ length: samples.count }, (_, i) => i);
    const of = {
      seed: place.seed,
      round: now.round,
      device: place.number,
      steps: learn.local_steps,
      epochs: learn.local_epochs,
      lengths: place.buckets ? samples.lengths : null,
    };
    return place.sampling === "local" ? roundBatches(own, learn.batch, of) : batchesOfShares(own, now.shares, of);
  }

  /** @param {number} round @param {number} attempt @param {Uint8Array} body the global adapters, to begin from */
  async #open(round, attempt, body) {
    const { half } = this;
    const again = round === this.round;
    if (half.trained) {
      const { values, grid = new Uint16Array(0) } = decode(body, "adapter");
      half.write(/** @type {Float32Array} */ (values));
      half.begin(/** @type {Float32Array} */ (values));
      if (this.exchange.changes) Object.assign(this, { start: /** @type {Float32Array} */ (values).slice(), grid });
    }
    if (this.learn.state === "keep") {
      if (again) half.putOptimizer(this.begin); // the optimiser goes back as well
      this.begin = half.optimizer();
    } else {
      half.putOptimizer(null);
    }
    if (again) this.exchange.remember(this.leftOut);
    this.leftOut = this.exchange.memory();
    Object.assign(this, { round, attempt, step: 0, loss: 0 });
    await this.#save();
  }

  /** @param {string} at @param {Int32Array} indices @param {number} steps in the round: make one of them */
  async #train(at, indices, steps) {
    const { round, step, place } = this;
    const began = performance.now();
    const seed = derive(place.seed, "dropout", round, step, place.number);
    const now = { seed, headSeed: derive(seed, "head"), rate: rate(this.learn, { round, step, steps }) };
    const waited = { seconds: 0 };
    const { loss, rows } = await this.#exchanges(`${at}/steps/${step}`, indices, now, waited);
    this.loss += loss * rows;
    const seconds = (performance.now() - began) / 1000;
    const { up, down } = this.link;
    this.report({ kind: "step", round, step, steps, loss, rows, seconds, waited: waited.seconds, up, down });
  }

  /**
   * @param {string} path of the step
   * @param {Int32Array} indices its rows
   * @param {{seed: bigint, headSeed: bigint, rate: number}} now
   * @param {{seconds: number}} waited takes the seconds of waiting for the server
   * @returns {Promise<{loss: number, rows: number}>}
   */
  async #exchanges(path, indices, now, waited) {
    const { half, exchange, place, round, step } = this;
    const announced = half.take(this.samples.rows(indices));
    const { rows, tokens, lengths, labels } = announced;
    const frame = { round, step, device: place.number };
    const x = new Float32Array(tokens * half.dim);
    let filled = 0;
    for (const piece of half.forward(now)) {
      x.set(piece, filled);
      filled += piece.length;
    }
    const sent = encode({ ...frame, kind: "step", rows, lengths, labels, tokens: exchange.outgoing(x, round, step, UP) });
    if (!half.hasHead) {
      const answer = await this.#ask(path, sent, tokens, "gradient", waited);
      if (!answer) throw new WireError("an empty answer came where a loss was agreed");
      half.backward(now, answer.tokens ? exchange.incoming(answer.tokens, DOWN, tokens) : null);
      return { loss: /** @type {number} */ (answer.loss), rows };
    }
    const last = await this.#ask(`${path}/forward`, sent, tokens, "tokens", waited);
    if (!last?.tokens) throw new WireError("an empty answer came where activations were agreed");
    const found = half.finish(now, exchange.incoming(last.tokens, HEAD_DOWN, tokens));
    const up = encode({ ...frame, kind: "tokens", tokens: exchange.outgoing(found.gradient, round, step, HEAD_UP) });
    const back = await this.#ask(`${path}/backward`, up, tokens, "tokens", waited);
    half.backward(now, back?.tokens ? exchange.incoming(back.tokens, DOWN, tokens) : null);
    return { loss: found.loss, rows };
  }

  /**
   * @param {string} path
   * @param {Uint8Array} body
   * @param {number} tokens
   * @param {"gradient" | "tokens"} kind of the answer
   * @param {{seconds: number}} waited
   * @returns {Promise<import("../codec/bodies.js").Message | null>} null where it is empty
   */
  async #ask(path, body, tokens, kind, waited) {
    const headers = /** @type {Record<string, string>} */ (this.half.text ? { "Sflam-Tokens": String(tokens) } : {});
    const began = performance.now();
    const found = await this.link.call("POST", path, body, headers, HEADER_BYTES + 12 * tokens * this.half.dim);
    waited.seconds += (performance.now() - began) / 1000;
    return found.length ? decode(found, kind) : null;
  }

  /** @param {string} at @param {number} round @param {Int32Array[]} batches: send what was trained on them */
  async #deliver(at, round, batches) {
    const { half } = this;
    const samples = batches.reduce((all, batch) => all + batch.length, 0);
    const trained = () => this.exchange.trained(round, samples, half.read(), this.start, this.grid);
    const body = half.trained ? encode(trained()) : new Uint8Array(0);
    const mean = this.loss / Math.max(1, samples);
    await this.link.call("PUT", `${at}/adapters`, body, half.hasHead ? { "Sflam-Loss": String(mean) } : {});
    const steps = batches.filter((batch) => batch.length).length;
    this.report({ kind: "round", round, steps, loss: mean });
    this.#line(`round ${round + 1}: ${steps} steps, loss ${mean.toFixed(4)}`);
  }

  /** Write the state of this device. */
  async #save() {
    const { place, round, attempt, step, loss, begin, leftOut, start, grid } = this;
    const half = this.half.state();
    const left = this.exchange.memory();
    const state = { run: place.run, round, attempt, step, loss, begin, leftOut, start, grid, left, half };
    await this.store.putState(place.number, state);
  }

  /** Load the state of this device, unless it is of another run. */
  async #restore() {
    const found = await this.store.state(this.place.number);
    if (found?.run !== this.place.run || !this.half.restore(found.half)) return;
    const { round, attempt, step, loss, begin, leftOut, start = this.start, grid = this.grid } = found;
    Object.assign(this, { round, attempt, step, loss, begin, leftOut, start, grid });
    this.exchange.remember(found.left);
  }

  /** @param {string} text */
  #line(text) {
    this.report({ kind: "line", text });
  }
}
