/** Errors that end in one clear line for the user of the page; the names are Python's. */

/** What every error of the device is. */
export class SflamError extends Error {
  /** @param {string} message one line: the value, the limit, and the fix */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** Graphs that cannot be read or run. */
export class GraphError extends SflamError {}

/** Bytes from a server that are not what was agreed. */
export class WireError extends SflamError {}

/** A state that does not belong to this model or optimiser. */
export class RunError extends SflamError {}

/** Settings that this device cannot go by. */
export class ConfigError extends SflamError {}

/** Values that cannot be encoded: not finite, or beyond float32. */
export class NotFiniteError extends WireError {}

/** Samples that cannot be used. */
export class DataError extends SflamError {}

/** A job that a browser cannot do; another kind of device can. */
export class UnsupportedError extends SflamError {}

/** A device that cannot go on over the network. */
export class ServeError extends SflamError {}

/** A request that the server refuses, and that changed nothing. */
export class Refused extends ServeError {
  /**
   * @param {number} status of the answer
   * @param {string} message the server's reason
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Return the beginning of what was found, in one line.
 * @param {unknown} found
 * @returns {string}
 */
export function shown(found) {
  let text;
  try {
    text = typeof found === "string" ? JSON.stringify(found) : String(JSON.stringify(found) ?? found);
  } catch {
    text = typeof found;
  }
  return text.slice(0, 60);
}
