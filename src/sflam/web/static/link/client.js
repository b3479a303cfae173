/** A device's side of the connection: requests to the server that the page came from, patient with losses. */

import { Refused, ServeError } from "../errors.js";

const LARGEST = 2 ** 31 - 1; // bytes of an answer: what one array of a browser holds
const SHORT = 1 << 20; // bytes of JSON there may be in an answer
export const FIRST_PAUSE = 0.1;
export const LONGEST_PAUSE = 5;
/** No answer, and what a server answers that is busy or stops, or a proxy before it while it is away. */
const AWAY = [0, 408, 429, 502, 503, 504];
const SLOWEST = 1000; // bytes a second of a body going up, as the server allows

/**
 * @typedef {object} Answer
 * @property {number} status 0 where none came
 * @property {number | null} retry seconds after which to ask again
 * @property {Uint8Array} body
 */

/** Requests to one server. */
export class Link {
  /**
   * @param {object} options
   * @param {string} options.token the device's token
   * @param {string} [options.base] address of the server, with a proxy's prefix; a page's own origin by default
   * @param {number} [options.patience] seconds without any answer after which a request is given up
   * @param {number} [options.timeout] seconds without a byte after which a connection counts as lost
   * @param {(line: string) => void} [options.notify] shows a line to the user of the device
   * @param {(seconds: number) => Promise<void>} [options.sleep]
   * @param {typeof fetch} [options.fetch]
   */
  constructor({ token, base = "", patience = 600, timeout = 60, notify = () => {}, sleep = pause, fetch: get = fetch }) {
    Object.assign(this, { token, base, patience, timeout, notify, sleep });
    this.fetch = get.bind(globalThis);
    /** Bytes of bodies sent and received. */
    this.up = 0;
    this.down = 0;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @returns {Promise<any>} the JSON that the request is answered with; throws as {@link call} does
   */
  async json(method, path, body) {
    const sent = body === undefined ? undefined : new TextEncoder().encode(JSON.stringify(body));
    const found = await this.call(method, path, sent, {}, SHORT);
    try {
      return JSON.parse(new TextDecoder().decode(found));
    } catch {
      throw new ServeError(`the server answers ${path} with no JSON; is it an sflam server?`);
    }
  }

  /**
   * Send a request, again after losses and while the server is away; again, too, where a proxy finds it too large, whose
   * limit can be raised while devices wait.
   * @param {string} method
   * @param {string} path
   * @param {Uint8Array} [body]
   * @param {Record<string, string>} [headers] beside the token
   * @param {number} [most] bytes there may be in the answer
   * @returns {Promise<Uint8Array>} the body of its answer; Refused where the server refuses it for good, ServeError where
   *   there is none for `patience` seconds
   */
  async call(method, path, body, headers = {}, most = LARGEST) {
    let began = performance.now();
    let wait = FIRST_PAUSE;
    let reported = false;
    let small = "";
    for (;;) {
      const { status, retry, body: found } = await this.#once(method, path, body, headers, most);
      if (status >= 200 && status < 300) {
        this.up += body?.length ?? 0;
        this.down += found.length;
        return found;
      }
      let own = status ? reasonOf(found) : lineOf(new TextDecoder().decode(found));
      if (status === 413 && own === null) {
        own = small =
          `a proxy before the server refuses a body of ${body?.length ?? 0} bytes as too large (413); raise its limit: ` +
          "client_max_body_size 0 in nginx, LimitRequestBody 0 in Apache, request_body max_size in Caddy";
      } else if (!AWAY.includes(status)) {
        throw new Refused(status, own ?? `${method} ${path} is answered by status ${status}, and not by sflam`);
      }
      const why = own ?? `status ${status}`;
      const computing = status === 503 && retry === 0;
      if (computing) began = performance.now();
      if (performance.now() - began > 1000 * this.patience) {
        throw new ServeError(small || `no answer from the server for ${this.patience} s (${why}); is it up?`);
      }
      if (!reported && !computing) {
        this.notify(`no answer from the server (${why}); trying again`);
        reported = true;
      }
      await this.sleep(retry ?? wait * (0.5 + Math.random() / 2));
      wait = Math.min(LONGEST_PAUSE, 2 * wait);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Uint8Array | undefined} body
   * @param {Record<string, string>} headers
   * @param {number} most
   * @returns {Promise<Answer>}
   */
  async #once(method, path, body, headers, most) {
    const control = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const expect = (/** @type {number} */ seconds) => {
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(new Error(`nothing came for ${seconds.toFixed(0)} s`)), 1000 * seconds);
    };
    expect(this.timeout + (body?.length ?? 0) / SLOWEST);
    try {
      const response = await this.fetch(this.base + path, {
        method,
        headers: { Authorization: `Bearer ${this.token}`, ...headers },
        body: /** @type {BodyInit | undefined} */ (body),
        cache: "no-store",
        redirect: "error",
        signal: control.signal,
      });
      const found = await readAll(response, most, () => expect(this.timeout));
      if (!found) throw new ServeError(`the server answers ${path} with more than ${most} bytes; is it an sflam server?`);
      return { status: response.status, retry: retryOf(response), body: found };
    } catch (error) {
      if (error instanceof ServeError) throw error;
      const lost = control.signal.aborted ? control.signal.reason : error;
      return { status: 0, retry: null, body: new TextEncoder().encode(String(lost?.message ?? lost)) };
    } finally {
      clearTimeout(timer);
    }
  }
}

/** @param {number} seconds @returns {Promise<void>} */
function pause(seconds) {
  return new Promise((done) => setTimeout(done, 1000 * seconds));
}

/**
 * @param {Response} response
 * @param {number} most bytes there may be
 * @param {() => void} came called at every piece
 * @returns {Promise<Uint8Array | null>} its body; null where there is more; throws where it ends early
 */
async function readAll(response, most, came) {
  const wanted = Number(response.headers.get("Content-Length") ?? NaN);
  if (wanted > most) return null;
  const pieces = [];
  let size = 0;
  const reader = response.body?.getReader();
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read()) {
    came();
    pieces.push(piece.value);
    size += piece.value.length;
    if (size > most) {
      await reader?.cancel();
      return null;
    }
  }
  if (size < wanted && !response.headers.has("Content-Encoding")) throw new Error(`an answer broke off ${wanted - size} bytes before its end`);
  const found = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    found.set(piece, at);
    at += piece.length;
  }
  return found;
}

/** @param {Response} response @returns {number | null} seconds after which to ask again, where it says so */
function retryOf(response) {
  const seconds = parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) ? Math.min(LONGEST_PAUSE, Math.max(0, seconds)) : null;
}

/** @param {Uint8Array} body @returns {string | null} an sflam server's reason, one short line; null where it is another's */
function reasonOf(body) {
  try {
    const { error } = JSON.parse(new TextDecoder().decode(body));
    return error === undefined ? null : lineOf(String(error));
  } catch {
    return null;
  }
}

/** @param {string} text @returns {string} */
function lineOf(text) {
  return text.split(/\s+/).join(" ").trim().slice(0, 300);
}
