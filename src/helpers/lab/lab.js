// The lab: two denoisers side by side, from the same noise. One file, four lives: a custom element on the static page,
// the worker in which that page's denoisers run, an anywidget beside a kernel, and a module that Node can import.

// Gaussian noise with the same bits as helpers.noise ------------------------------------------------------------------

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

export function threefry(key0, key1, low, high = 0) {
  const keys = [key0 | 0, key1 | 0, key0 ^ key1 ^ 0x1bd11bda];
  let x = (low + keys[0]) | 0, y = (high + keys[1]) | 0;
  for (let block = 0; block < 5; block++) {
    for (const r of ROTATIONS[block % 2]) {
      x = (x + y) | 0;
      y = ((y << r) | (y >>> (32 - r))) ^ x;
    }
    x = (x + keys[(block + 1) % 3]) | 0;
    y = (y + keys[(block + 2) % 3] + block + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}

function logarithm(bits) {
  let e = bits ? 32 - Math.clz32(bits) : 0, m = (bits + 0.5) / 2 ** e;
  if (m < 0.7) [m, e] = [2 * m, e - 1];
  const s = (m - 1) / (m + 1);
  let p = 0;
  for (let k = 21; k > 0; k -= 2) p = p * (s * s) + 1 / k;
  return (e - 32) * 0.6931471805599453 + 2 * s * p;
}

function circle(bits) {
  const a = (((bits & 0x3fffffff) + 0.5) / 2 ** 30 - 0.5) * (Math.PI / 2);
  let c = 1, s = 1;
  for (let k = 16; k > 0; k -= 2) {
    c = 1 - ((a * a) / (k * (k - 1))) * c;
    s = 1 - ((a * a) / (k * (k + 1))) * s;
  }
  s *= a;
  return [[c, s], [-s, c], [-c, -s], [s, -c]][bits >>> 30];
}

export function normal(count, seed, stream = 0) {
  const z = new Float64Array(count + (count % 2));
  for (let i = 0; i < z.length; i += 2) {
    const [a, b] = threefry(seed, stream, i / 2);
    const radius = Math.sqrt(-2 * logarithm(a)), [c, s] = circle(b);
    z[i] = radius * c;
    z[i + 1] = radius * s;
  }
  return z.subarray(0, count);
}

// The samplers of helpers.sampling ------------------------------------------------------------------------------------
// denoise(y, sigma) -> x_hat, both Float64Array of particles * d numbers. A particle that leaves is NaN and stays NaN.

const DIVERGED = 1e3;

function settle(y, d, limit) {
  for (let i = 0; i < y.length; i += d) {
    let gone = false;
    for (let j = i; j < i + d; j++) gone ||= !(Math.abs(y[j]) <= limit);
    if (gone) y.fill(NaN, i, i + d);
  }
  return y;
}

const STEPS = {
  async "Euler (DDIM)"({ denoise, y, sigma, after }) {
    const x = await denoise(y, sigma);
    return y.map((v, i) => x[i] + (after / sigma) * (v - x[i]));
  },
  async Heun({ denoise, y, sigma, after, d, limit }) {
    const x = await denoise(y, sigma), slope = y.map((v, i) => (v - x[i]) / sigma);
    const ahead = settle(y.map((v, i) => v + (after - sigma) * slope[i]), d, limit);
    if (after === 0) return ahead;
    const x2 = await denoise(ahead, after);
    return y.map((v, i) => v + ((after - sigma) * (slope[i] + (ahead[i] - x2[i]) / after)) / 2);
  },
  async "reverse SDE"({ denoise, y, sigma, after, seed, step }) {
    const x = await denoise(y, sigma), ratio = (after / sigma) ** 2;
    const z = normal(y.length, seed, step), noise = after * Math.sqrt(1 - ratio);
    return y.map((v, i) => x[i] + ratio * (v - x[i]) + noise * z[i]);
  },
  async "gradient estimation"({ denoise, y, sigma, after, memory }) {
    const x = await denoise(y, sigma), eps = y.map((v, i) => (v - x[i]) / sigma), old = memory.eps ?? eps;
    memory.eps = eps;
    return y.map((v, i) => v + (after - sigma) * (2 * eps[i] - old[i]));
  },
};

// The start and every later point, one Float64Array each; `seen(step)` is awaited after each step.
export async function sample(sampler, denoise, n, d, sigmas, seed, seen = () => {}, centre = 0) {
  let y = normal(n * d, seed).map((v) => centre + sigmas[0] * v);
  const frames = [y], memory = {}, limit = DIVERGED * sigmas[0];
  for (let step = 1; step < sigmas.length; step++) {
    const [sigma, after] = sigmas.slice(step - 1);
    y = settle(await STEPS[sampler]({ denoise, y, sigma, after, d, limit, seed, step, memory }), d, limit);
    frames.push(y);
    await seen(step);
  }
  return frames;
}

// The measures of helpers.metrics -------------------------------------------------------------------------------------

const rows = (y, d) => Array.from({ length: y.length / d }, (_, i) => y.subarray(i * d, (i + 1) * d));

const equal = (points, i, j, d) => points.subarray(i, i + d).every((v, k) => v === points[j + k]);

// Squared distance to the nearest and second nearest distinct training point, Infinity where there is but one, and the
// nearest one's index. Training images are bytes, so that ten thousand of them fit: they are 255 times as large as x.
export function nearest(x, training, d) {
  const unit = training instanceof Uint8Array ? 255 : 1;
  let best = Infinity, second = Infinity, index = -1;
  for (let i = 0, k = 0; i < training.length; i += d, k++) {
    let sum = 0;
    for (let j = 0; j < d && sum < second; j++) sum += (unit * x[j] - training[i + j]) ** 2;
    if (sum < best) [second, best, index] = [best, sum, k];
    else if (sum < second && !(sum === best && equal(training, i, index * d, d))) second = sum;
  }
  return { best: best / unit ** 2, second: second / unit ** 2, index };
}

// Two samples of the plane: root mean over 32 evenly spaced directions of the squared W2 of the projections.
export function slicedW2(a, b) {
  const n = a.length / 2, m = b.length / 2, along = (y, c, s) =>
    Float64Array.from({ length: y.length / 2 }, (_, i) => c * y[2 * i] + s * y[2 * i + 1]).sort();
  let total = 0;
  for (let k = 0; k < 32; k++) {
    const c = Math.cos((k * Math.PI) / 32), s = Math.sin((k * Math.PI) / 32), u = along(a, c, s), v = along(b, c, s);
    for (let i = 0, j = 0, at = 0; i < n && j < m; ) {
      const next = Math.min((i + 1) * m, (j + 1) * n); // quantile, in units of 1 / (n m)
      total += ((next - at) / (n * m)) * (u[i] - v[j]) ** 2;
      at = next;
      if (next === (i + 1) * m) i++;
      if (next === (j + 1) * n) j++;
    }
  }
  return Math.sqrt(total / 32);
}

const isLost = (row) => Number.isNaN(row[0]);
const isCopy = ({ best, second }) => Math.sqrt(best) < Math.sqrt(second) / 3;

// The nearest training point of every row, null for one that diverged.
const neighbours = (y, d, training) => training && rows(y, d).map((row) => (isLost(row) ? null : nearest(row, training, d)));

export function measure(y, d, training, reference, near = neighbours(y, d, training)) {
  const kept = rows(y, d).filter((row) => !isLost(row));
  const found = { diverged: y.length / d - kept.length, copies: null, distance: null };
  if (kept.length && near) {
    const there = near.filter(Boolean);
    if (there.some(({ second }) => second < Infinity)) found.copies = there.filter(isCopy).length / kept.length;
    if (!reference) found.distance = there.reduce((sum, r) => sum + Math.sqrt(r.best), 0) / kept.length;
  }
  if (kept.length && reference) found.distance = slicedW2(Float64Array.from(kept.flatMap((r) => [...r])), reference);
  return found;
}

// The worker of the page: files, ONNX runtime, sampling ---------------------------------------------------------------

const inside = (file) => new URL(file, import.meta.url);

const unzip = (bytes) => new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

// Files named .gz are unpacked here, unless the server has done it already.
async function download(url) {
  const answer = await fetch(url).catch(() => { throw new Error(`no network: could not load ${url.pathname}`); });
  if (!answer.ok) throw new Error(`${url.pathname} is not there: the server answered ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return url.pathname.endsWith(".gz") && bytes[0] === 0x1f && bytes[1] === 0x8b ? new Uint8Array(await unzip(bytes)) : bytes;
}

async function loadRuntime() {
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly, which the denoisers need");
  const ort = await import(inside("ort/ort.wasm.bundle.min.mjs").href).catch((e) => { throw new Error(`the ONNX runtime did not load: ${e.message}`); });
  ort.env.wasm.wasmBinary = (await download(inside("ort/ort-wasm-simd-threaded.wasm.gz"))).buffer;
  ort.env.wasm.numThreads = 1; // more need headers that a static page does not have
  return ort;
}

const TYPES = { F32: Float32Array, F64: Float64Array, U8: Uint8Array };

export function safetensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)), found = {};
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  delete header.__metadata__;
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header)) {
    found[name] = new TYPES[dtype](bytes.slice(8 + length + from, 8 + length + to).buffer);
  }
  return found;
}

// A promise kept by key; one that failed is forgotten, so that the next press tries again.
const kept = new Map();
function once(key, make) {
  if (!kept.has(key)) kept.set(key, make().catch((error) => { kept.delete(key); throw error; }));
  return kept.get(key);
}

class Files {
  constructor(spec) { this.spec = spec; this.d = spec.event.reduce((a, b) => a * b, 1); }
  url(file) { return inside(`labs/${this.spec.name}/${file}?v=${this.spec.version}`); }
  manifest() { return once(this.url("manifest.json").href, async () => JSON.parse(new TextDecoder().decode(await download(this.url("manifest.json"))))); }

  async arrays(entry) {
    if (!entry) return {};
    const url = this.url(entry.file);
    return once(url.href, async () => safetensors(await download(url)));
  }

  async data({ target, count }) {
    const { targets, training } = await this.manifest();
    return { ...(await this.arrays(targets[target])), ...(await this.arrays(training[`${target}/${count}`])) };
  }

  async denoiser(entry) {
    const ort = await once("runtime", loadRuntime), url = this.url(entry.file);
    const session = await once(url.href, async () => {
      const bytes = await download(url);
      return ort.InferenceSession.create(bytes).catch((e) => { throw new Error(`${url.pathname} is no denoiser that runs here: ${e.message}`); });
    });
    const shape = (y) => [y.length / this.d, ...this.spec.event];
    return async (y, sigma) => {
      const feeds = { y: new ort.Tensor("float32", Float32Array.from(y, (v) => (Number.isNaN(v) ? 0 : v)), shape(y)) };
      if (session.inputNames.includes("sigma")) feeds.sigma = new ort.Tensor("float32", [sigma], []);
      return Float64Array.from((await session.run(feeds)).x_hat.data);
    };
  }

  async sample({ state, side }, seen) {
    const { target, count, schedule, steps, seed, particles } = state, [family, value, sampler] = state[side];
    const key = [target, count, family, value].join("/"), entry = (await this.manifest()).models[key];
    if (!entry) throw new Error(`this page has no denoiser ${key}`);
    const data = await this.data({ target, count }), denoise = await this.denoiser(entry);
    const sigmas = this.spec.schedules[schedule][steps];
    const frames = await sample(sampler, denoise, Number(particles), this.d, sigmas, Number(seed), seen, this.spec.centre);
    const end = frames.at(-1), near = neighbours(end, this.d, data.training), cells = this.spec.cells ** 2;
    const numbers = measure(end, this.d, data.training, data.reference, near);
    const flat = new Float32Array(frames.length * frames[0].length);
    frames.forEach((frame, i) => flat.set(frame, i * frame.length));
    if ("total_variation" in entry) numbers["total variation"] = entry.total_variation;
    return { numbers, near, end, frames: flat, generated: data.generated?.slice(entry.picture * cells, (entry.picture + 1) * cells) };
  }
}

if (typeof DedicatedWorkerGlobalScope !== "undefined" && globalThis instanceof DedicatedWorkerGlobalScope) {
  const labs = new Map();
  onmessage = async ({ data: { id, ask, spec, ...question } }) => {
    if (!labs.has(spec.name)) labs.set(spec.name, new Files(spec));
    try {
      const answer = await labs.get(spec.name)[ask](question, (step) => postMessage({ id, working: step }));
      postMessage({ id, ...answer });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  };
}

// Who answers: the worker of the page, or a kernel --------------------------------------------------------------------

class Answers {
  constructor() { this.open = new Map(); this.last = 0; }

  ask(question, working = () => {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.last;
      this.open.set(id, { resolve, reject, working });
      this.send({ id, ...question });
    });
  }

  receive({ id, working, error, ...answer }) {
    const asked = this.open.get(id);
    if (!asked) return;
    if (working !== undefined) return asked.working(working);
    this.open.delete(id);
    if (error) asked.reject(new Error(error));
    else asked.resolve(answer);
  }

  fail(message) {
    for (const { reject } of this.open.values()) reject(new Error(message));
    this.open.clear();
  }
}

let page; // one worker for all labs of a page: the runtime is loaded once
class Page extends Answers {
  send(question) {
    if (!this.worker) {
      this.worker = new Worker(import.meta.url, { type: "module" });
      this.worker.onmessage = ({ data }) => this.receive(data);
      this.worker.onerror = (event) => {
        event.preventDefault?.();
        this.fail(`the worker did not start${event.message ? `: ${event.message}` : ""}; is the page opened from a server?`);
        this.worker = null;
      };
    }
    this.worker.postMessage(question);
  }
}

const GONE = "The kernel that built these denoisers is gone. Run this cell again.";
class Kernel extends Answers {
  constructor(model) {
    super();
    this.model = model;
    model.on("msg:custom", ({ arrays = [], ...answer }, buffers) => {
      arrays.forEach(([name, type], i) => {
        const { buffer, byteOffset, byteLength } = buffers[i];
        answer[name] = new { float32: Float32Array, uint8: Uint8Array }[type](buffer.slice(byteOffset, byteOffset + byteLength));
      });
      this.receive(answer);
    });
    model.on("comm_live_update", () => this.fail(GONE));
  }

  ask(question, working = () => {}) {
    let heard = false;
    const timer = setTimeout(() => heard || working("No answer from the kernel yet: it is busy, or it is gone"), 10_000);
    const seen = (step) => { heard = true; working(step); };
    return super.ask(question, seen).finally(() => clearTimeout(timer));
  }

  send({ spec, ...question }) {
    try { this.model.send(question); } catch { this.fail(GONE); }
  }
}

// The panel -----------------------------------------------------------------------------------------------------------

const STYLE = `
.lab, .lab * { box-sizing: border-box; }
.lab { container-type: inline-size; --line: color-mix(in srgb, currentColor 30%, transparent); margin: 1em 0; font-size: .9em; color: inherit; }
.lab-controls, .lab-time { display: flex; flex-wrap: wrap; gap: .5em 1em; align-items: end; margin: .5em 0; }
.lab label { display: flex; flex-direction: column; font-size: .85em; }
.lab select, .lab input, .lab button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line);
  border-radius: 4px; padding: .2em .4em; min-height: 2em; max-width: 100%; accent-color: #d1495b; }
.lab select option { color: #222; background: #fff; }
.lab input[type=number] { width: 6em; }
.lab button { cursor: pointer; }
.lab :is(select, input, button):focus-visible { outline: 2px solid #4c72b0; outline-offset: 1px; }
.lab-stage { position: relative; display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 .8em; }
.lab-panel { display: grid; grid-row: span 3; grid-template-rows: subgrid; }
.lab-panel canvas { width: 100%; border: 1px solid var(--line); display: block; }
.lab-panel .lab-choice { display: flex; flex-wrap: wrap; gap: .2em .6em; align-content: end; margin-bottom: .3em; align-items: end; }
.lab-panel input[type=range] { width: 6em; padding: 0; }
.lab .lab-numbers { display: grid; grid-template-columns: 1fr auto; gap: 0 .5em; margin: .3em 0; font-size: .85em; }
.lab .lab-numbers :is(dt, dd) { float: none; width: auto; margin: 0; font-weight: normal; } /* JupyterLab floats them */
.lab .lab-numbers dd { font-variant-numeric: tabular-nums; text-align: right; }
.lab-stale .lab-view { opacity: .35; }
.lab-view { position: relative; } .lab-view svg { position: absolute; inset: 0; }
.lab-over { position: absolute; inset: 0; display: grid; place-items: center; pointer-events: none; }
.lab-over button { pointer-events: auto; }
.lab .lab-over button { background: #a8324a; color: #fff; border: 0; font-size: 1.15em; padding: .6em 1.2em; }
.lab-time input[type=range] { flex: 1; min-width: 8em; padding: 0; }
.lab-status, .lab-detail { margin: .3em 0; } .lab-status[data-bad] { font-weight: bold; border-left: 4px solid #d1495b; padding-left: .6em; }
.lab figcaption { font-size: 1em; }
@container (max-width: 560px) {
  .lab-stage { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .lab-panel.lab-target { grid-column: 1 / -1; width: 60%; justify-self: center; }
  .lab-panel .lab-choice select { width: 100%; }
}`;
const COLOURS = { target: "#4c72b0", particle: "#d1495b", generated: "#2a9d8f" };
const LABELS = { plane: "distance to target", image: "distance to nearest training image" };

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// What the query of an address asks a lab for: the parts of a state that the lab has, and words for what it has not.
export function stateOfLink(spec, search) {
  const query = new URLSearchParams(search), state = {}, refused = [];
  if (query.get("lab") !== spec.name) return { state, refused };
  const steps = Object.keys(Object.values(spec.schedules)[0]); // a Map, since any object has a "constructor"
  const known = new Map(Object.entries({ target: spec.targets, count: spec.counts, schedule: Object.keys(spec.schedules), steps, particles: spec.particles }));
  for (const [key, value] of query) {
    const [name, knob = "", sampler] = value.split("~"), family = spec.families.find((f) => f.name === name);
    if (known.get(key)?.includes(value)) state[key] = value;
    else if (key === "seed" && /^\d{1,10}$/.test(value) && value < 2 ** 32) state.seed = Number(value);
    else if ((key === "left" || key === "right") && family?.values.includes(knob) && spec.samplers.includes(sampler)) state[key] = [name, knob, sampler];
    else if (known.has(key) || ["seed", "left", "right"].includes(key)) refused.push(`${key} ${value}`);
  }
  return { state, refused };
}

const shortened = (value, digits = 3) => (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits));
const pointsOf = (count) => (count === "all" ? "the whole target" : count);

class Panel {
  constructor(root, spec, answers, { caption = "", stills = [], linked = false } = {}) {
    Object.assign(this, { root, spec, answers, linked });
    this.d = spec.event.reduce((a, b) => a * b, 1);
    this.state = structuredClone(spec.start);
    this.sides = {};
    this.frame = 0;
    this.chosen = null;
    this.started = false;
    this.ask = 0;
    if (!document.getElementById("lab-style")) document.head.append(h("style", { id: "lab-style" }, STYLE));
    this.build(caption, stills);
    if (linked) this.readLink();
    this.show();
    this.theme = new MutationObserver(() => requestAnimationFrame(() => this.draw())); // JupyterLab hides all for a moment
    for (const element of [document.documentElement, document.body]) this.theme.observe(element, { attributeFilter: ["data-theme", "data-jp-theme-name"] });
    new ResizeObserver(() => this.draw()).observe(this.stage); // the root on a page is inline: it has no size
  }

  // Building

  select(label, key, options, text = (o) => o) {
    const box = h("select", { onchange: () => this.change({ [key]: box.value }) }, ...options.map((o) => h("option", { value: o }, text(o))));
    this.inputs[key] = box;
    return options.length > 1 ? h("label", {}, label, box) : "";
  }

  build(caption, stills) {
    const { spec } = this;
    this.inputs = {};
    this.samplerBoxes = {};
    const steps = Object.keys(Object.values(spec.schedules)[0]);
    const seed = h("input", { type: "number", min: 0, max: 4294967295, step: 1, onchange: () => this.change({ seed: Math.min(Math.max(Math.trunc(seed.valueAsNumber) || 0, 0), 4294967295) }) });
    this.inputs.seed = seed;
    const controls = h("div", { class: "lab-controls" },
      this.select("target", "target", spec.targets, (t) => t.replace("_", " ")),
      this.select("training points", "count", spec.counts, pointsOf),
      spec.samplers_apart ? "" : h("label", {}, "sampler", this.samplers("both")), this.select("schedule", "schedule", Object.keys(spec.schedules)),
      this.select("steps", "steps", steps), this.select("particles", "particles", spec.particles),
      h("label", {}, "seed", seed));
    const panels = ["target", "left", "right"].map((side, i) => this.panel(side, stills[i]));
    this.press = h("button", { type: "button", onclick: () => this.run() }, "▶ Press to run");
    this.over = h("div", { class: "lab-over" }, this.press);
    this.stage = h("div", { class: "lab-stage" }, ...panels, this.over);
    this.play = h("button", { type: "button", onclick: () => (this.playing ? this.pause() : this.animate()) }, "▶ Play");
    this.time = h("input", { type: "range", min: 0, max: 1, step: 1, value: 0, "aria-label": "step of the sampler", oninput: () => { this.pause(); this.frame = Number(this.time.value); this.draw(); } });
    this.sigma = h("output", {});
    const particle = h("input", { type: "number", min: 1, step: 1, onchange: () => this.choose(particle.value === "" ? null : particle.valueAsNumber - 1) });
    this.particle = particle;
    this.timeline = h("div", { class: "lab-time" }, this.play, this.time, this.sigma,
      h("label", {}, spec.image ? "image number" : "particle number", particle));
    this.detail = h("p", { class: "lab-detail", "aria-live": "polite" });
    this.status = h("p", { class: "lab-status", role: "status" });
    const buttons = h("div", { class: "lab-controls" },
      h("button", { type: "button", onclick: () => this.reset() }, "Reset"),
      this.linked ? h("button", { type: "button", onclick: () => this.copyLink() }, "Copy link to this state") : "");
    this.root.replaceChildren(h("figure", { class: "lab", role: "group", "aria-label": `Lab: ${caption}` }, controls, this.stage, this.timeline, this.detail, this.status, buttons,
      caption ? h("figcaption", {}, caption) : ""));
    // JupyterLab takes the arrow keys, and x to cut the cell, from every control that does not say this.
    for (const control of this.root.querySelectorAll("select, input, button")) control.dataset.lmSuppressShortcuts = "true";
  }

  panel(side, still = "") {
    const { spec } = this, canvas = h("canvas", { role: "img", width: 10, height: 10, "aria-label": `${side} panel, not run yet` });
    canvas.addEventListener("click", (event) => this.pick(side, event));
    this.sides[side] = { canvas, still };
    const name = side === "target" ? h("strong", {}, "target") : this.choice(side);
    const numbers = h("dl", { class: "lab-numbers", "aria-live": "polite" });
    this.sides[side].numbers = numbers;
    return h("div", { class: `lab-panel lab-${side}` }, h("div", { class: "lab-choice" }, name), h("div", { class: "lab-view" }, canvas, still), numbers);
  }

  samplers(side) {
    const box = h("select", { onchange: () => {
      const part = {};
      for (const s of side === "both" ? ["left", "right"] : [side]) part[s] = [...this.state[s].slice(0, 2), box.value];
      this.change(part);
    } }, ...this.spec.samplers.map((s) => h("option", {}, s)));
    if (side !== "both") box.setAttribute("aria-label", `sampler, ${side} panel`);
    this.samplerBoxes[side] = box;
    return box;
  }

  choice(side) {
    const { families } = this.spec, box = h("select", { "aria-label": `architecture, ${side} panel`,
      onchange: () => { const f = families.find((g) => g.name === box.value); this.change({ [side]: [f.name, f.values[Math.min(1, f.values.length - 1)], this.state[side][2]] }); } },
      ...families.map((f) => h("option", {}, f.name)));
    const slide = h("input", { type: "range", min: 0, step: 1, oninput: () => {
      const f = families.find((g) => g.name === box.value);
      this.change({ [side]: [f.name, f.values[Number(slide.value)], this.state[side][2]] });
    } });
    const text = h("span", {}), knob = h("label", {}, text, slide);
    Object.assign(this.sides[side], { box, slide, knob, text });
    const fragment = document.createDocumentFragment();
    fragment.append(box, knob, this.spec.samplers_apart ? this.samplers(side) : "");
    return fragment;
  }

  // State

  show() {
    for (const [key, input] of Object.entries(this.inputs)) input.value = this.state[key];
    for (const [side, box] of Object.entries(this.samplerBoxes)) box.value = this.state[side === "both" ? "left" : side][2];
    for (const side of ["left", "right"]) {
      const { box, slide, knob, text } = this.sides[side], [name, value] = this.state[side];
      const family = this.spec.families.find((f) => f.name === name);
      box.value = name;
      knob.hidden = family.values.length < 2;
      knob.style.display = knob.hidden ? "none" : "";
      text.textContent = `${family.knob} ${value}`;
      Object.assign(slide, { max: family.values.length - 1 });
      slide.value = family.values.indexOf(value);
      slide.setAttribute("aria-label", `${family.knob}, ${side} panel`);
      slide.setAttribute("aria-valuetext", value);
    }
    const first = JSON.stringify(this.state) === JSON.stringify(this.spec.start);
    if (!this.started) {
      for (const { still } of Object.values(this.sides)) if (still) still.style.display = first ? "" : "none";
      for (const side of ["left", "right"]) this.tell(side, first && this.spec.numbers ? this.spec.numbers[side] : null);
    }
    this.timeline.style.display = this.started ? "" : "none";
  }

  change(part) {
    Object.assign(this.state, part);
    this.show();
    this.writeLink();
    clearTimeout(this.soon);
    this.soon = this.started ? setTimeout(() => { this.soon = 0; this.run(); }, 120) : 0;
  }

  reset() {
    this.state = structuredClone(this.spec.start);
    this.chosen = null;
    this.change({});
  }

  readLink() {
    const { state, refused } = stateOfLink(this.spec, location.search);
    Object.assign(this.state, state);
    if (refused.length) this.say(`The link asks for what this lab does not have: ${refused.join(", ")}.`, true);
  }

  writeLink() {
    if (!this.linked) return;
    const query = new URLSearchParams({ lab: this.spec.name });
    for (const [key, value] of Object.entries(this.state)) {
      if (JSON.stringify(value) !== JSON.stringify(this.spec.start[key])) query.set(key, Array.isArray(value) ? value.join("~") : value);
    }
    const changed = [...query].length > 1;
    history.replaceState(history.state, "", changed ? `?${query}#lab-${this.spec.name}` : location.pathname + location.hash);
  }

  async copyLink() {
    const address = `${location.href.split("#")[0]}#lab-${this.spec.name}`;
    try {
      await navigator.clipboard.writeText(address);
      this.say("The link to this state is on the clipboard.");
    } catch {
      this.say(`The link to this state: ${address}`);
    }
  }

  // Running

  say(text, bad = false) {
    this.status.textContent = text;
    this.status.toggleAttribute("data-bad", bad);
  }

  async run() {
    const turn = ++this.ask, state = structuredClone(this.state), { spec } = this;
    this.pause();
    this.press.disabled = true;
    this.say(this.started ? "Sampling …" : "Loading the denoisers …");
    const working = (what) => turn === this.ask && this.say(typeof what === "string" ? `${what} …` : "Sampling …");
    try {
      const data = await this.answers.ask({ ask: "data", spec, target: state.target, count: state.count }, working);
      const results = {}; // one after the other: a side that fails is the last word, and a changed mind asks no more
      for (const side of ["left", "right"]) {
        if (turn !== this.ask) return;
        results[side] = await this.answers.ask({ ask: "sample", spec, state, side }, working);
      }
      if (turn !== this.ask) return;
      Object.assign(this, { data, results, shown: state, started: true });
      this.over.remove();
      this.stage.classList.remove("lab-stale");
      for (const { still } of Object.values(this.sides)) if (still) still.remove();
      this.steps = spec.schedules[state.schedule][state.steps].length - 1;
      this.time.max = this.steps;
      this.particle.max = state.particles;
      const lost = ["left", "right"].filter((s) => this.results[s].numbers.diverged > 0);
      this.say(lost.length ? lost.map((s) => `${this.title(s, state)}: ${this.results[s].numbers.diverged} of ${state.particles} particles diverged and are not drawn.`).join(" ") : "");
      for (const side of ["left", "right"]) this.tell(side, this.results[side].numbers);
      this.tellTarget();
      this.show();
      this.choose(this.chosen !== null && this.chosen < state.particles ? this.chosen : null);
      this.frame = this.steps;
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.draw();
      else this.animate();
    } catch (error) {
      if (turn !== this.ask) return;
      this.stage.classList.toggle("lab-stale", this.started);
      const remedy = this.started ? "Change something to retry." : "Change something or press again to retry.";
      this.say(error.message.endsWith(".") ? error.message : `${error.message}. ${remedy}`, true);
    } finally {
      if (turn === this.ask) this.press.disabled = false;
    }
  }

  title(side, state = this.shown) {
    const [name, value, sampler] = state[side], { knob } = this.spec.families.find((f) => f.name === name);
    return [name, knob && `${knob} ${value}`, this.spec.samplers_apart && sampler].filter(Boolean).join(", ");
  }

  tell(side, numbers) {
    const total = this.state.particles, percent = (v) => (v === null || v === undefined ? "–" : `${(100 * v).toFixed(1)} %`);
    const lines = numbers ? [[LABELS[this.spec.image ? "image" : "plane"], shortened(numbers.distance), numbers.distance],
      ["copies", percent(numbers.copies), numbers.copies], ["diverged", `${numbers.diverged} of ${total}`, numbers.diverged]] : [];
    if (numbers && !this.spec.image) lines.push(["exact total variation", shortened(numbers["total variation"], 2), numbers["total variation"]]);
    this.sides[side].numbers.replaceChildren(...lines.flatMap(([name, text, value]) => [h("dt", {}, name), h("dd", { "data-value": value ?? "" }, text)]));
  }

  tellTarget() {
    const { count } = this.shown, text = this.spec.image ? "first 16 training images" : count === "all" ? "density" : `density and ${count} training points`;
    this.sides.target.numbers.replaceChildren(h("dt", {}, text), h("dd", {}, ""));
  }

  pause() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.play.textContent = "▶ Play";
  }

  animate() {
    if (!this.results) return;
    const from = this.frame >= this.steps ? 0 : this.frame, began = performance.now(), pace = Math.max(this.steps / 3000, 1 / 250);
    this.play.textContent = "⏸ Pause";
    const next = (now) => {
      this.frame = Math.min(from + (now - began) * pace, this.steps);
      this.draw();
      if (this.frame < this.steps) this.playing = requestAnimationFrame(next);
      else this.pause();
    };
    this.playing = requestAnimationFrame(next);
  }

  // Drawing. Noisy points are drawn at y / sqrt(1 + sigma^2), so that every noise level fits the window.

  levels() { return this.spec.schedules[this.shown.schedule][this.shown.steps]; }

  draw() {
    if (!this.results || !this.stage.clientWidth) return; // nothing to see: drawn when it comes into view
    const levels = this.levels(), at = Math.floor(this.frame), sigma = levels[Math.min(at, this.steps)];
    this.time.value = at;
    this.time.setAttribute("aria-valuetext", `step ${at} of ${this.steps}`);
    this.sigma.textContent = `step ${at} of ${this.steps}, σ = ${sigma ? sigma.toPrecision(3) : 0}`;
    for (const side of ["target", "left", "right"]) (this.spec.image ? this.drawImages : this.drawPlane).call(this, side);
  }

  context(side, aspect = 1) {
    const { canvas } = this.sides[side], width = canvas.clientWidth, scale = devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(width * aspect * scale));
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return [context, width, width * aspect];
  }

  heat(values, colour) {
    const n = this.spec.cells, bitmap = h("canvas", { width: n, height: n }), pixels = new ImageData(n, n);
    const rgb = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    values.forEach((v, i) => pixels.data.set([...rgb, v], 4 * i));
    bitmap.getContext("2d").putImageData(pixels, 0, 0);
    return bitmap;
  }

  // Position of a particle at a fractional frame: [x, y] in window coordinates, NaN where it diverged.
  place(side, i, frame, width) {
    const { frames } = this.results[side], levels = this.levels(), a = Math.floor(frame), b = Math.min(a + 1, this.steps), n = Number(this.shown.particles);
    const shrink = (k) => 1 / Math.sqrt(1 + levels[k] ** 2), part = frame - a;
    return [0, 1].map((j) => {
      const u = frames[2 * (a * n + i) + j] * shrink(a), v = frames[2 * (b * n + i) + j] * shrink(b), z = u + part * (v - u);
      return width * (0.5 + ((j ? -1 : 1) * z) / (2 * this.spec.extent));
    });
  }

  drawPlane(side) {
    const [context, width] = this.context(side), result = this.results[side], map = side === "target" ? this.data.target : result.generated;
    const holder = side === "target" ? this.data : result, ink = getComputedStyle(this.root).color;
    if (map) context.drawImage((holder.bitmap ??= this.heat(map, side === "target" ? COLOURS.target : COLOURS.generated)), 0, 0, width, width);
    const inWindow = ([x, y]) => [width * (0.5 + x / (2 * this.spec.extent)), width * (0.5 - y / (2 * this.spec.extent))];
    const { training } = this.data, n = Number(this.shown.particles);
    if (side === "target" && training) {
      context.fillStyle = ink;
      for (let i = 0; i < training.length; i += 2) {
        const [x, y] = inWindow([training[i], training[i + 1]]);
        context.fillRect(x - 1, y - 1, 2, 2);
      }
    }
    if (side !== "target") {
      context.fillStyle = COLOURS.particle;
      for (let i = 0; i < n; i++) {
        const [x, y] = this.place(side, i, this.frame, width);
        if (x >= 0 && x <= width && y >= 0 && y <= width) context.fillRect(x - 0.9, y - 0.9, 1.8, 1.8);
      }
      if (this.chosen !== null) this.drawPath(context, side, width, ink, inWindow);
    }
    const label = side === "target" ? `Density of the target ${this.shown.target}` : `Particles and exact generated density of ${this.title(side)}`;
    this.sides[side].canvas.setAttribute("aria-label", label);
  }

  drawPath(context, side, width, ink, inWindow) {
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    context.beginPath();
    for (let k = 0; k <= this.steps; k++) context.lineTo(...this.place(side, this.chosen, k, width));
    context.stroke();
    const ring = ([x, y], r) => { context.beginPath(); context.arc(x, y, r, 0, 7); context.stroke(); };
    ring(this.place(side, this.chosen, this.frame, width), 4);
    const near = this.near(side);
    if (near) ring(inWindow(this.trainingPoint(near.index)), 7);
  }

  trainingPoint(index) {
    const point = this.data.training.subarray(index * this.d, (index + 1) * this.d);
    return point instanceof Uint8Array ? Float32Array.from(point, (v) => v / 255) : point;
  }

  end(side, i) { const { frames } = this.results[side]; return frames.subarray(frames.length - (this.shown.particles - i) * this.d).subarray(0, this.d); }

  near(side, i = this.chosen) {
    const result = this.results[side], end = this.end(side, i);
    if (!this.data.training || isLost(end)) return null;
    return ((result.near ??= [])[i] ??= nearest(end, this.data.training, this.d)); // the page's worker has found them all
  }

  // Images: a row of samples, and under it the row of the training images nearest to where they end.
  drawImages(side) {
    const [h0, w0] = this.spec.event.slice(-2), n = side === "target" ? Math.min(16, this.data.training ? this.data.training.length / this.d : 0) : Number(this.shown.particles);
    const columns = 4, lines = Math.ceil(Math.max(n, 1) / columns), double = side !== "target" && this.data.training;
    const ratio = h0 / w0, row = (double ? 2.2 : 1) * ratio; // a fifth of an image between the pairs
    const [context, width] = this.context(side, (lines * row) / columns), size = width / columns, tall = size * ratio;
    context.imageSmoothingEnabled = false;
    const sigma = side === "target" ? 0 : this.levels()[Math.floor(this.frame)], frames = this.results[side]?.frames;
    for (let i = 0; i < n; i++) {
      const y = Math.floor(i / columns) * row * size, x = (i % columns) * size;
      const from = (Math.floor(this.frame) * n + i) * this.d;
      const image = side === "target" ? this.trainingPoint(i) : frames.subarray(from, from + this.d);
      context.drawImage(this.picture(image, sigma), x, y, size, tall);
      const near = double && this.near(side, i);
      if (near) context.drawImage(this.picture(this.trainingPoint(near.index), 0), x, y + tall, size, tall);
      if (i === this.chosen && side !== "target") {
        context.strokeStyle = COLOURS.particle;
        context.lineWidth = 3;
        context.strokeRect(x + 1, y + 1, size - 2, tall * (double ? 2 : 1) - 2);
      }
    }
    this.sides[side].canvas.setAttribute("aria-label", side === "target" ? "Training images" : `Samples of ${this.title(side)}, each above the training image nearest to it`);
  }

  // Noise of level sigma around 1/2 is shrunk to the window; values outside [0, 1] are drawn black or white.
  picture(image, sigma) {
    const [h0, w0] = this.spec.event.slice(-2), pixels = new ImageData(w0, h0), bitmap = h("canvas", { width: w0, height: h0 });
    const channels = this.spec.event.length === 3 ? this.spec.event[0] : 1, shrink = 1 / Math.sqrt(1 + 4 * sigma ** 2);
    for (let i = 0; i < h0 * w0; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * (0.5 + shrink * (image[(channels === 3 ? c : 0) * h0 * w0 + i] - 0.5));
      pixels.data[4 * i + 3] = 255;
    }
    bitmap.getContext("2d").putImageData(pixels, 0, 0);
    return bitmap;
  }

  // One particle

  pick(side, event) {
    if (!this.results || side === "target") return;
    const { canvas } = this.sides[side], x = event.offsetX, y = event.offsetY, width = canvas.clientWidth, n = Number(this.shown.particles);
    if (this.spec.image) {
      const tall = ((width / 4) * this.spec.event.at(-2)) / this.spec.event.at(-1) * (this.data.training ? 2.2 : 1);
      return this.choose(Math.min(n - 1, 4 * Math.floor(y / tall) + Math.floor((4 * x) / width)));
    }
    let best = Infinity, chosen = null;
    for (let i = 0; i < n; i++) {
      const [u, v] = this.place(side, i, this.frame, width), distance = (u - x) ** 2 + (v - y) ** 2;
      if (distance < best) [best, chosen] = [distance, i];
    }
    this.choose(chosen);
  }

  choose(i) {
    this.chosen = i !== null && i >= 0 && i < this.shown?.particles ? i : null;
    this.particle.value = this.chosen === null ? "" : this.chosen + 1;
    const words = this.chosen === null ? [] : ["left", "right"].map((side) => {
      const end = this.end(side, this.chosen), name = this.title(side);
      if (isLost(end)) return `${name}: it diverged.`;
      const near = this.near(side), place = this.spec.image ? "" : ` ends at (${shortened(end[0], 2)}, ${shortened(end[1], 2)})`;
      if (!near) return `${name}:${place || " no training image to compare with"}.`;
      const copy = this.data.training.length > this.d ? (isCopy(near) ? ": a copy" : ": not a copy") : "";
      const where = this.spec.image ? `training image ${near.index + 1}` : `the training point (${[...this.trainingPoint(near.index)].map((v) => shortened(v, 2)).join(", ")})`;
      return `${name}:${place} ${place ? "at" : " is at"} distance ${shortened(Math.sqrt(near.best))} from ${where}${copy}.`;
    });
    this.detail.textContent = words.length ? `${this.spec.image ? "Image" : "Particle"} ${this.chosen + 1}, the same noise on both sides. ${words.join(" ")}` : this.results ? this.spec.image ? "Click an image: how far is it from the training image under it?" : `Click a particle: its path${this.data.training ? ", and the training point nearest to its end" : ""}.` : "";
    this.draw();
  }
}

// The page's element --------------------------------------------------------------------------------------------------

if (typeof HTMLElement !== "undefined" && typeof customElements !== "undefined" && !customElements.get("denoise-lab")) {
  customElements.define("denoise-lab", class extends HTMLElement {
    connectedCallback() {
      if (this.panel) return;
      const spec = JSON.parse(this.querySelector("script").textContent);
      const stills = [...this.querySelectorAll(".lab-still svg")], caption = this.querySelector("figcaption")?.textContent ?? "";
      page ??= new Page();
      this.panel = new Panel(this, spec, page, { caption, stills, linked: true });
    }

    // For tests and teachers: the answer for any state, without the controls.
    sample(state, side = "left") {
      const { spec } = this.panel;
      return page.ask({ ask: "sample", spec, state: { ...spec.start, ...state }, side });
    }
  });
}

// Jupyter and Colab
export default {
  render({ model, el }) {
    const root = h("div", {});
    el.append(root);
    const panel = new Panel(root, model.get("spec"), new Kernel(model), { caption: model.get("caption") });
    return () => panel.theme.disconnect(); // the cell ran again, or is gone
  },
};
