/**
 * A drawn digit as the digits of the default job are: as large as its square allows, and its ink counted in cells.
 *
 * Those were bitmaps of 32 x 32, filled by the digit, of which the ink was counted in 8 x 8 cells of 16 bits each
 * (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998).
 */

import { BOX, resized } from "./pixels.js";

const LEVELS = 16;

/**
 * @param {Uint8Array} ink [H W] 0 (none) to 255
 * @param {number} width W
 * @param {number} side pixels of a side of the picture wanted
 * @returns {import("./pixels.js").Picture | null} the picture, or null where there is no ink
 */
export function pictureOf(ink, width, side) {
  const height = ink.length / width;
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] < 128) continue;
      [top, bottom] = [Math.min(top, y), y];
      [left, right] = [Math.min(left, x), Math.max(right, x)];
    }
  }
  if (bottom < 0) return null;
  const extent = Math.max(bottom - top + 1, right - left + 1, side);
  const startY = top - Math.floor((extent - (bottom - top + 1)) / 2);
  const startX = left - Math.floor((extent - (right - left + 1)) / 2);
  const square = new Uint8Array(extent * extent);
  for (let y = 0; y < extent; y++) {
    for (let x = 0; x < extent; x++) {
      const [fromY, fromX] = [startY + y, startX + x];
      const inside = fromY >= top && fromY <= bottom && fromX >= left && fromX <= right;
      if (inside) square[y * extent + x] = ink[fromY * width + fromX];
    }
  }
  const cells = resized({ height: extent, width: extent, channels: 1, pixels: square }, side, side, BOX);
  const pixels = cells.pixels.map((value) => Math.round((Math.round((value * LEVELS) / 255) * 255) / LEVELS));
  return { ...cells, pixels };
}
