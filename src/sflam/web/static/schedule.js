/** The learning rate of every step: that of `sflam.learn.settings.schedule`. */

/**
 * @param {{lr: number, schedule: string, warmup: number, decay: number, rounds: number}} learn
 * @param {{round: number, step: number, steps: number}} moment of `steps` in the round
 * @returns {number}
 */
export function rate(learn, { round, step, steps }) {
  const fraction = (/** @type {number} */ done) => (round + (step + done) / steps) / learn.rounds;
  const begin = fraction(0);
  const share =
    begin < learn.warmup
      ? Math.min(1, fraction(1) / learn.warmup)
      : afterWarmup(learn.schedule, (begin - learn.warmup) / (1 - learn.warmup));
  return learn.lr * share * learn.decay ** round;
}

/** @param {string} schedule @param {number} over @returns {number} */
function afterWarmup(schedule, over) {
  if (schedule === "cosine") return (1 + Math.cos(Math.PI * over)) / 2;
  return schedule === "linear" ? 1 - over : 1;
}
