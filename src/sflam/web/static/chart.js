/** The loss of every step as a line, and the mean of every round as dots, on a canvas. */

const LEFT = 44;
const FOOT = 22;
const EDGE = 10;
const MOST = 4000; // steps that are drawn; beyond, every other one is forgotten

export class LossChart {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {[number, number][]} where in the run, in rounds, and the loss */
    this.steps = [];
    /** @type {[number, number][]} */
    this.rounds = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {{round: number, step: number, steps: number, loss: number}} step */
  addStep({ round, step, steps, loss }) {
    if (!Number.isFinite(loss)) return;
    this.steps.push([round + (step + 1) / steps, loss]);
    if (this.steps.length > MOST) this.steps = this.steps.filter((_, i) => i % 2);
    this.draw();
  }

  /** @param {{round: number, loss: number}} round */
  addRound({ round, loss }) {
    if (!Number.isFinite(loss)) return;
    this.rounds.push([round + 1, loss]);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!context || !width) return;
    const dense = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [width * dense, height * dense];
    context.scale(dense, dense);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    context.font = `12px ${style.fontFamily}`;
    context.fillStyle = colour("--soft");
    const all = [...this.steps, ...this.rounds];
    if (!all.length) {
      context.fillText("no step yet", LEFT, height / 2);
      return;
    }
    const losses = all.map(([, loss]) => loss);
    const [low, high] = [Math.min(0, ...losses), Math.max(...losses)];
    const last = Math.max(1, Math.ceil(Math.max(...all.map(([x]) => x))));
    const first = Math.min(last - 1, Math.floor(Math.min(...all.map(([x]) => x - 1e-9))));
    const x = (/** @type {number} */ at) => LEFT + ((at - first) / (last - first)) * (width - LEFT - EDGE);
    const y = (/** @type {number} */ loss) => EDGE + ((high - loss) / (high - low || 1)) * (height - FOOT - EDGE);
    this.#axes(context, colour("--line"), { x, y, width, low, high, first, last, height });
    context.strokeStyle = colour("--blue");
    context.lineWidth = 1.5;
    context.beginPath();
    this.steps.forEach(([at, loss], i) => (i ? context.lineTo(x(at), y(loss)) : context.moveTo(x(at), y(loss))));
    context.stroke();
    context.fillStyle = colour("--green");
    for (const [at, loss] of this.rounds) {
      context.beginPath();
      context.arc(x(at - 0.5), y(loss), 4, 0, 2 * Math.PI);
      context.fill();
    }
    canvas.setAttribute("aria-label", `loss ${losses[losses.length - 1].toPrecision(3)} in round ${last}`);
  }

  /** @param {CanvasRenderingContext2D} context @param {string} line @param {Record<string, any>} scale */
  #axes(context, line, { x, y, width, low, high, first, last, height }) {
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.textAlign = "right";
    for (const loss of [low, (low + high) / 2, high]) {
      context.beginPath();
      context.moveTo(LEFT, y(loss));
      context.lineTo(width - EDGE, y(loss));
      context.stroke();
      context.fillText(loss.toPrecision(2), LEFT - 8, y(loss) + 4);
    }
    context.textAlign = "center";
    const every = Math.max(1, Math.ceil((last - first) / Math.max(1, Math.floor((width - LEFT) / 60))));
    for (let round = first; round < last; round += every) {
      context.fillText(last - first < 8 ? `round ${round + 1}` : String(round + 1), x(round + 0.5), height - 5);
    }
    context.textAlign = "left";
  }
}
