/** The page around the device: what it shows, and what its user does. The device itself is in `worker.js`. */

import { LossChart } from "./chart.js";
import { Pad } from "./pad.js";
import { showSamples, showClasses } from "./samples_view.js";

const KEPT = "sflam token"; // in this tab alone, so that a reload goes on
const RUNNING = "sflam running";
const LINES = 200;

/** @param {string} id @returns {any} */
const at = (id) => document.getElementById(id);
const chart = new LossChart(at("chart"));
const pad = new Pad(at("pad"));
const view = { label: 0, job: /** @type {any} */ (null), count: 0, done: 0 };

/** @type {Worker | null} */
let worker = null;

/** @returns {string} the token of the link, which then leaves the address; or this tab's own */
function takeToken() {
  const given = tokenOf(location.hash);
  if (given) {
    if (given !== sessionStorage.getItem(KEPT)) sessionStorage.removeItem(RUNNING); // another device
    sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname);
  }
  return given || sessionStorage.getItem(KEPT) || "";
}

/** @param {string} text a link, what follows its #, or a token alone @returns {string} */
function tokenOf(text) {
  const fragment = new URLSearchParams(text.slice(text.indexOf("#") + 1));
  const found = fragment.get("token") ?? text.trim();
  return /^sflam_[\w-]+$/.test(found) ? found : "";
}

/** @param {string} token */
function begin(token) {
  at("enter").hidden = true;
  worker?.terminate();
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => EVENTS[data.kind](data);
  worker.onerror = (event) => fail({ text: `the page's worker cannot run (${event.message || "not loaded"})`, doing: "open" });
  ask({ do: "open", token });
}

/** @param {Record<string, any>} what */
function ask(what) {
  worker?.postMessage(what);
}

/** @param {string} text @param {string} [kind] */
function status(text, kind = "") {
  at("status").textContent = text;
  at("status").className = `phase ${kind}`;
}

/** @param {string} text */
function line(text) {
  const item = document.createElement("li");
  item.textContent = `${new Date().toLocaleTimeString()}  ${text}`;
  at("log").prepend(item);
  at("happened").hidden = false;
  while (at("log").children.length > LINES) at("log").lastChild.remove();
}

/** @param {{text: string, doing: string}} event */
function fail({ text, doing }) {
  at("failed").textContent = text;
  at("failed").hidden = false;
  line(text);
  if (doing === "open" || doing === "start") stopped("stopped");
  if (doing === "open") at("enter").hidden = false;
}

/** @param {string} word */
function stopped(word) {
  sessionStorage.removeItem(RUNNING);
  at("start").hidden = !view.job;
  at("stop").hidden = true;
  at("adding").hidden = at("samples").disabled = false;
  status(word, word === "ended" ? "open" : "");
}

function start() {
  at("failed").hidden = true;
  sessionStorage.setItem(RUNNING, "yes");
  at("start").hidden = true;
  at("stop").hidden = false;
  at("adding").hidden = at("samples").disabled = true;
  at("training").hidden = false;
  status("joining", "open");
  chart.draw();
  stayAwake();
  navigator.storage?.persist?.();
  ask({ do: "start" });
}

/** Ask the phone not to sleep while the page is seen; without a secure context it cannot be asked. */
function stayAwake() {
  if (document.visibilityState === "visible" && sessionStorage.getItem(RUNNING)) {
    navigator.wakeLock?.request("screen").catch(() => {});
  }
}

/** @param {number} bytes @returns {string} */
function size(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** @type {Record<string, (event: any) => void>} */
const EVENTS = {
  job({ job }) {
    view.job = job;
    const { device, cut, task, classes, scheme, bits, page, rounds } = job;
    at("facts").textContent =
      `Device ${device} of the job: ${cut} ${cut === 1 ? "block" : "blocks"} of the model (${task}), ${rounds} rounds, ` +
      (scheme === "identity" ? "raw floats cross the cut. " : `${bits[0]} bits a value up and ${bits[1]} down (${scheme}). `) +
      (classes.length ? `${classes.length} classes.` : "A language model: texts without labels.");
    at("insecure").hidden = job.secure;
    at("samples").hidden = false;
    at("drawing").hidden = !page.drawn;
    at("labels").textContent =
      page.needs["model.labels"] === "device"
        ? "They stay in this browser, and so do their labels."
        : "They stay in this browser. Their labels travel to the server.";
    at("share").textContent = `Use this device's ${page.share} digits`;
    at("files").accept = page.image ? "image/*,.npz" : ".npz,.json,.jsonl,.csv";
    at("files-help").textContent = page.image
      ? "Pictures get the class chosen above; an .npz file brings its own labels."
      : "Rows of token ids, made with the model's own tokenizer.";
    showClasses(at("classes"), page.image ? classes : [], (label) => (view.label = label));
    status("ready");
    at("start").hidden = false;
    at("start").textContent = job.begun ? "Go on" : "Start";
    if (sessionStorage.getItem(RUNNING)) start();
  },
  samples(event) {
    view.count = event.count;
    at("start").disabled = !event.count;
    at("hint").hidden = event.count > 0;
    at("share").hidden = view.job.page.share === null || event.shared;
    showSamples(event, view.job.classes, at, (index) => ask({ do: "remove", index }));
  },
  line({ text }) {
    line(text);
  },
  phase({ phase, round, seated, delivered }) {
    const where = phase === "open" ? `round ${round + 1} of ${view.job.rounds}` : phase;
    if (phase !== "ended") status(phase === "open" && (!seated || delivered) ? `waiting, ${where}` : where, "open");
  },
  step(event) {
    chart.addStep(event);
    const { round, step, steps, loss, seconds, waited, up, down } = event;
    status(`round ${round + 1} of ${view.job.rounds}`, "open");
    at("step").textContent = `${step + 1} of ${steps}`;
    at("loss").textContent = loss.toFixed(3);
    at("seconds").textContent = `${((seconds - waited) * 1000).toFixed(0)} + ${(waited * 1000).toFixed(0)} ms`;
    at("bytes").textContent = `${size(up)} up, ${size(down)} down`;
  },
  round(event) {
    chart.addRound(event);
    at("rounds").textContent = String(++view.done);
  },
  failed: fail,
  ended({ rounds }) {
    line(`the job has ended; this device trained ${rounds} rounds`);
    stopped("ended");
    at("start").hidden = true;
  },
};

at("start").addEventListener("click", start);
at("stop").addEventListener("click", () => {
  stopped("stopped");
  begin(takeToken());
});
at("share").addEventListener("click", () => ask({ do: "addShare" }));
at("clear").addEventListener("click", () => ask({ do: "remove", index: null }));
at("files").addEventListener("change", () => {
  at("failed").hidden = true;
  ask({ do: "addFiles", files: [...at("files").files], label: view.label });
  at("files").value = "";
});
at("wipe").addEventListener("click", () => pad.clear());
at("add").addEventListener("click", () => {
  const picture = pad.picture(view.job.page.drawn[0]);
  if (picture) ask({ do: "addPicture", picture, label: view.label });
  pad.clear();
});
at("enter").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const token = tokenOf(at("link").value);
  if (!token) return fail({ text: "that is neither the link nor the token that sflam enrol printed", doing: "" });
  sessionStorage.setItem(KEPT, token);
  at("failed").hidden = true;
  begin(token);
});
document.addEventListener("visibilitychange", stayAwake);
addEventListener("hashchange", () => {
  const given = takeToken(); // another link, opened where this page is already
  at("failed").hidden = true;
  if (given) begin(given);
});

const token = takeToken();
if (token) begin(token);
else at("enter").hidden = false;
