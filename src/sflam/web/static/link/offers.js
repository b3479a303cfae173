/** What a job may ask of a browser; see `sflam.link.needs`. What it asks is refused by name before the device joins. */

import { UnsupportedError } from "../errors.js";

/** @type {Record<string, string[]>} */
export const OFFERS = {
  "model.trainable": ["lora", "lora+head"],
  "model.labels": ["server", "device"],
  "model.dtype": ["float32"],
  "learn.optimizer": ["adamw", "adam", "sgd"],
  "learn.device_half": ["trained", "frozen"],
  "learn.aggregation": ["fedavg", "freeze-a", "svd"],
  "learn.local": ["plain", "fedprox"],
  "learn.cache": ["off"],
  "learn.loss": ["cross-entropy", "label-smoothing", "focal"],
  "learn.canonical": ["false", "true"],
  "quant.scheme": ["uniform", "rotated", "topk", "identity"],
  "data.sampling": ["local", "global"],
  "data.draw": ["passes"],
  "quant.delta": ["false"],
  privacy: ["none"],
  "privacy.sample_clip": ["none"],
  "privacy.clip_loss": ["none"],
  "privacy.distance_correlation": ["none"],
  "privacy.drop_tokens": ["none"],
  "privacy.secure_aggregation": ["false"],
  plugins: ["none"],
};

/** @param {Record<string, string>} needs setting -> value; throws where a browser cannot do one */
export function expectOffered(needs) {
  const lacking = Object.entries(needs).filter(([key, value]) => !(OFFERS[key] ?? []).includes(value));
  if (!lacking.length) return;
  const named = lacking.map(([key, value]) => `${key} = ${value}`).join(", ");
  const able = lacking.map(([key]) => `${key}: ${(OFFERS[key] ?? ["nothing"]).join(", ")}`).join("; ");
  throw new UnsupportedError(`a browser cannot do ${named} (it can do ${able}); join with sflam join, which does all`);
}
