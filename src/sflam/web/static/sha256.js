/**
 * SHA-256 (FIPS 180-4) in plain JavaScript: WebCrypto is absent on a page without a secure context, and seeds need it
 * at once, not by a promise.
 */

const K = new Uint32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);

/** A hash in the making: any number of `update`, then one `digest`. */
export class Sha256 {
  constructor() {
    this._state = new Uint32Array([
      0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    ]);
    this._words = new Uint32Array(64);
    this._block = new Uint8Array(64);
    this._view = new DataView(this._block.buffer);
    this._filled = 0;
    this._length = 0;
  }

  /**
   * Take more bytes.
   * @param {Uint8Array} bytes
   * @returns {Sha256} itself
   */
  update(bytes) {
    this._length += bytes.length;
    let at = 0;
    while (at < bytes.length) {
      const count = Math.min(64 - this._filled, bytes.length - at);
      this._block.set(bytes.subarray(at, at + count), this._filled);
      this._filled += count;
      at += count;
      if (this._filled === 64) {
        this._compress();
        this._filled = 0;
      }
    }
    return this;
  }

  /**
   * Return the hash, 32 bytes.
   * @returns {Uint8Array}
   */
  digest() {
    const length = this._length;
    const zeros = (119 - (length % 64)) % 64;
    const tail = new Uint8Array(1 + zeros + 8);
    tail[0] = 0x80;
    const view = new DataView(tail.buffer);
    view.setUint32(1 + zeros, Math.floor(length / 0x20000000));
    view.setUint32(5 + zeros, (length << 3) >>> 0);
    this.update(tail);
    const out = new Uint8Array(32);
    const words = new DataView(out.buffer);
    this._state.forEach((word, index) => words.setUint32(4 * index, word));
    return out;
  }

  /** @private */
  _compress() {
    const w = this._words;
    for (let i = 0; i < 16; i++) w[i] = this._view.getUint32(4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = this._state;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    const s = this._state;
    s[0] += a;
    s[1] += b;
    s[2] += c;
    s[3] += d;
    s[4] += e;
    s[5] += f;
    s[6] += g;
    s[7] += h;
  }
}

/**
 * Return the hash of bytes.
 * @param {Uint8Array} bytes
 * @returns {Uint8Array} 32 bytes
 */
export const sha256 = (bytes) => new Sha256().update(bytes).digest();

/**
 * Return bytes in hexadecimal.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
