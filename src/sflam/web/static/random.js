/**
 * NumPy's `default_rng(seed).permutation`, so that a browser draws the mini-batches of every other device.
 *
 * SeedSequence is M. E. O'Neill's seed_seq_fe with a pool of four words; PCG64 is her PCG XSL RR 128/64 (HMC-CS-2014-0905).
 */

const WORD = 0xffffffffn;
const LONG = (1n << 64n) - 1n;
const WIDE = (1n << 128n) - 1n;
const MULTIPLIER = (2549297995355413924n << 64n) + 4865540595714422341n;
const POOL = 4;

/** @param {bigint} seed @returns {number[]} its 32-bit words, lowest first; at least one */
function wordsOf(seed) {
  const words = [];
  do {
    words.push(Number(seed & WORD));
    seed >>= 32n;
  } while (seed);
  return words;
}

/** @param {number} start @param {number} factor @returns {(word: number) => number} one of the sequence's two hashes */
function hasher(start, factor) {
  let constant = start;
  return (word) => {
    word ^= constant;
    constant = Math.imul(constant, factor);
    word = Math.imul(word, constant);
    return (word ^ (word >>> 16)) >>> 0;
  };
}

/** @param {number} x @param {number} y @returns {number} */
function mixed(x, y) {
  const word = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
  return (word ^ (word >>> 16)) >>> 0;
}

/** @param {bigint} seed @returns {bigint[]} four 64-bit words of state */
function stateOf(seed) {
  const words = wordsOf(seed);
  const hash = hasher(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL }, (_, i) => hash(words[i] ?? 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mixed(pool[to], hash(pool[from]));
  }
  for (const word of words.slice(POOL)) {
    for (let to = 0; to < POOL; to++) pool[to] = mixed(pool[to], hash(word));
  }
  const out = hasher(0x8b51f9dd, 0x58f38ded);
  const found = Array.from({ length: 8 }, (_, i) => BigInt(out(pool[i % POOL])));
  return [0, 2, 4, 6].map((i) => found[i] | (found[i + 1] << 32n));
}

/** NumPy's generator of one seed. */
export class Generator {
  /** @param {bigint} seed 0 or more */
  constructor(seed) {
    const [high, low, sequenceHigh, sequenceLow] = stateOf(seed);
    this.increment = ((((sequenceHigh << 64n) | sequenceLow) << 1n) | 1n) & WIDE;
    this.state = 0n;
    this.#step();
    this.state = (this.state + ((high << 64n) | low)) & WIDE;
    this.#step();
    /** @type {number | null} the upper half of the last 64 bits, not used yet */
    this.spare = null;
  }

  #step() {
    this.state = (this.state * MULTIPLIER + this.increment) & WIDE;
  }

  /** @returns {bigint} 64 bits */
  next64() {
    this.#step();
    const turn = this.state >> 122n;
    const word = (this.state >> 64n) ^ (this.state & LONG);
    return ((word >> turn) | (word << ((64n - turn) & 63n))) & LONG;
  }

  /** @returns {number} 32 bits */
  next32() {
    if (this.spare !== null) {
      const word = this.spare;
      this.spare = null;
      return word;
    }
    const both = this.next64();
    this.spare = Number(both >> 32n);
    return Number(both & WORD);
  }

  /** @param {number} most below 2^32 @returns {number} a whole number in 0..most */
  interval(most) {
    if (!most) return 0;
    const mask = 0xffffffff >>> Math.clz32(most);
    for (;;) {
      const value = (this.next32() & mask) >>> 0;
      if (value <= most) return value;
    }
  }

  /**
   * @param {ArrayLike<number>} items
   * @returns {Int32Array} them in a random order
   */
  permutation(items) {
    const found = Int32Array.from(items);
    for (let i = found.length - 1; i > 0; i--) {
      const j = this.interval(i);
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  }
}
