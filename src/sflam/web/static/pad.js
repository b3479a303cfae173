/** A square to draw on, with a finger, a pen or a mouse. */

import { pictureOf } from "./samples/drawing.js";

const SIDE = 160; // ink is kept at this many dots a side
const WIDTH = 14; // of the pen

export class Pad {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    canvas.width = canvas.height = SIDE;
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    Object.assign(this.context, { lineWidth: WIDTH, lineCap: "round", lineJoin: "round" });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#line(event, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.#line(this.last, event);
    });
  }

  /** @param {{offsetX: number, offsetY: number}} from @param {{offsetX: number, offsetY: number}} to */
  #line(from, to) {
    const scale = SIDE / this.canvas.clientWidth;
    this.last = { offsetX: to.offsetX, offsetY: to.offsetY };
    this.context.strokeStyle = getComputedStyle(this.canvas).color;
    this.context.beginPath();
    this.context.moveTo(from.offsetX * scale, from.offsetY * scale);
    this.context.lineTo(to.offsetX * scale, to.offsetY * scale);
    this.context.stroke();
  }

  clear() {
    this.context.clearRect(0, 0, SIDE, SIDE);
  }

  /** @param {number} side pixels wanted @returns {import("./samples/pixels.js").Picture | null} null where there is no ink */
  picture(side) {
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    return pictureOf(Uint8Array.from({ length: SIDE * SIDE }, (_, i) => data[4 * i + 3]), SIDE, side);
  }
}
