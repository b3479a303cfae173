/**
 * What a page must find again after a reload: its state, its samples, and the files it downloaded.
 *
 * In IndexedDB, where a record is written whole or not at all. Where the browser has none (some private windows), the
 * page trains as well, and a reload begins again.
 */

import { ServeError } from "./errors.js";

const NAME = "sflam-device";
const FILES = "files";
const STATES = "states";
const SAMPLES = "samples";
const WEEK = 7 * 24 * 3600 * 1000; // ms that a file is kept without being used

/**
 * @typedef {object} Store
 * @property {(sha256: string) => Promise<Uint8Array | undefined>} file
 * @property {(sha256: string, body: Uint8Array) => Promise<void>} putFile
 * @property {(device: number) => Promise<any>} state
 * @property {(device: number, state: any) => Promise<void>} putState
 * @property {(device: number) => Promise<any>} samples
 * @property {(device: number, samples: any) => Promise<void>} putSamples
 */

/** @implements {Store} */
class DatabaseStore {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @param {string} sha256 */
  async file(sha256) {
    const found = await this.#get(FILES, sha256);
    if (found) await this.#put(FILES, sha256, { ...found, used: Date.now() });
    return found?.body;
  }

  /** @param {string} sha256 @param {Uint8Array} body */
  async putFile(sha256, body) {
    await this.#forgetFiles();
    await this.#put(FILES, sha256, { body, used: Date.now() }).catch(() => {}); // it is downloaded again
  }

  /** @param {number} device */
  state(device) {
    return this.#get(STATES, device);
  }

  /** @param {number} device @param {any} state */
  putState(device, state) {
    return this.#put(STATES, device, state);
  }

  /** @param {number} device */
  samples(device) {
    return this.#get(SAMPLES, device);
  }

  /** @param {number} device @param {any} samples */
  putSamples(device, samples) {
    return this.#put(SAMPLES, device, samples);
  }

  /** Remove the files that no job asked for in a week. */
  async #forgetFiles() {
    const old = Date.now() - WEEK;
    await this.#do(FILES, "readwrite", (files) => {
      const request = files.openCursor();
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor) return;
        if (!(cursor.value.used > old)) cursor.delete();
        cursor.continue();
      };
      return request;
    });
  }

  /** @param {string} room @param {IDBValidKey} key @returns {Promise<any>} */
  #get(room, key) {
    return this.#do(room, "readonly", (records) => records.get(key));
  }

  /** @param {string} room @param {IDBValidKey} key @param {any} value @returns {Promise<any>} */
  #put(room, key, value) {
    return this.#do(room, "readwrite", (records) => records.put(value, key));
  }

  /**
   * @param {string} room
   * @param {IDBTransactionMode} mode
   * @param {(records: IDBObjectStore) => IDBRequest} ask
   * @returns {Promise<any>} what the request gave, once the transaction is whole
   */
  #do(room, mode, ask) {
    return new Promise((done, failed) => {
      const transaction = this.database.transaction(room, mode);
      const request = ask(transaction.objectStore(room));
      const fail = () => {
        const reason = transaction.error ?? request.error;
        failed(new ServeError(`this browser cannot keep the state of the device (${reason?.message}); free some space`));
      };
      transaction.oncomplete = () => done(request.result);
      transaction.onabort = fail;
      transaction.onerror = fail;
    });
  }
}

/** Forgets all when the page goes. @implements {Store} */
export class MemoryStore {
  constructor() {
    /** @type {Map<string, any>} */
    this.records = new Map();
  }

  /** @param {string} sha256 */
  async file(sha256) {
    return this.records.get(sha256);
  }

  /** @param {string} sha256 @param {Uint8Array} body */
  async putFile(sha256, body) {
    this.records.set(sha256, body);
  }

  /** @param {number} device */
  async state(device) {
    return this.records.get(`${STATES} ${device}`);
  }

  /** @param {number} device @param {any} state */
  async putState(device, state) {
    this.records.set(`${STATES} ${device}`, structuredClone(state));
  }

  /** @param {number} device */
  async samples(device) {
    return this.records.get(`${SAMPLES} ${device}`);
  }

  /** @param {number} device @param {any} samples */
  async putSamples(device, samples) {
    this.records.set(`${SAMPLES} ${device}`, structuredClone(samples));
  }
}

/** @returns {Promise<Store>} the browser's database, or none that lasts where it has no database */
export async function openStore() {
  try {
    const request = indexedDB.open(NAME, 1);
    const database = await new Promise((done, failed) => {
      request.onupgradeneeded = () => [FILES, STATES, SAMPLES].forEach((name) => request.result.createObjectStore(name));
      request.onsuccess = () => done(request.result);
      request.onerror = () => failed(request.error);
      request.onblocked = () => failed(new Error("another page holds an older database"));
    });
    return new DatabaseStore(database);
  } catch {
    return new MemoryStore();
  }
}
