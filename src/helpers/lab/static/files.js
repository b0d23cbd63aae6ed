// What a lab of the page loads: its manifest, arrays, and denoisers for the ONNX runtime.

import { measure, neighbours } from "./measures.js";
import { sample } from "./samplers.js";
import { layersOf, Training } from "./train.js";
import { copier, copierLoss, generatedLogDensity, gridPoints, pictureOf, totalVariation } from "./truth.js";

const inside = (file) => new URL(file, import.meta.url);

const failed = (words) => (error) => { throw new Error(`${words}: ${error.message}`); };

async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Files named .gz are unpacked here, unless the server has done it already.
async function download(url) {
  const { pathname } = url;
  const answer = await fetch(url).catch(failed(`no network: could not load ${pathname}`));
  if (!answer.ok) throw new Error(`${pathname} is not there: the server answered ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return pathname.endsWith(".gz") && bytes[0] === 0x1f && bytes[1] === 0x8b ? unzip(bytes) : bytes;
}

async function loadRuntime() {
  if (typeof WebAssembly !== "object") {
    throw new Error("this browser has no WebAssembly, which the denoisers need");
  }
  const script = inside("ort/ort.wasm.bundle.min.mjs").href;
  const ort = await import(script).catch(failed("the ONNX runtime did not load"));
  ort.env.wasm.wasmBinary = (await download(inside("ort/ort-wasm-simd-threaded.wasm.gz"))).buffer;
  ort.env.wasm.numThreads = 1; // more need headers that a static page does not have
  return ort;
}

const TYPES = { F32: Float32Array, F64: Float64Array, U8: Uint8Array };

const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

export function safetensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__, ...header } = json(bytes.subarray(8, 8 + length));
  const array = ({ dtype, data_offsets: [from, to] }) =>
    new TYPES[dtype](bytes.slice(8 + length + from, 8 + length + to).buffer);
  return Object.fromEntries(Object.entries(header).map(([name, about]) => [name, array(about)]));
}

// A promise kept by key; one that failed is forgotten, so that the next press tries again.
const kept = new Map();
function once(key, make) {
  const forget = (error) => { kept.delete(key); throw error; };
  if (!kept.has(key)) kept.set(key, make().catch(forget));
  return kept.get(key);
}

export class Files {
  constructor(spec) { Object.assign(this, { spec, d: spec.event.reduce((a, b) => a * b, 1) }); }

  // What `read` makes of a file of the lab.
  get(file, read) {
    const url = inside(`labs/${this.spec.name}/${file}?v=${this.spec.version}`);
    return once(url.href, async () => read(await download(url), url));
  }

  manifest() { return this.get("manifest.json", json); }

  async data({ target, count }) {
    const { targets, training } = await this.manifest();
    const entries = [targets[target], training[`${target}/${count}`]].filter(Boolean);
    const arrays = await Promise.all(entries.map(({ file }) => this.get(file, safetensors)));
    return Object.assign({}, ...arrays);
  }

  async denoiser({ file }) {
    const ort = await once("runtime", loadRuntime);
    const session = await this.get(file, (bytes, { pathname }) => ort.InferenceSession.create(bytes)
      .catch(failed(`${pathname} is no denoiser that runs here`)));
    const asks = session.inputNames.includes("sigma");
    return async (y, sigma) => {
      const there = Float32Array.from(y, (v) => (Number.isNaN(v) ? 0 : v));
      const shape = [y.length / this.d, ...this.spec.event];
      const feeds = { y: new ort.Tensor("float32", there, shape) };
      if (asks) feeds.sigma = new ort.Tensor("float32", [sigma], []);
      return Float64Array.from((await session.run(feeds)).x_hat.data);
    };
  }

  async sample({ state, side }, seen) {
    const { spec, d } = this, { target, count, schedule, steps } = state;
    const [family, value, sampler] = state[side], key = [target, count, family, value].join("/");
    const entry = (await this.manifest()).models[key];
    if (!entry) throw new Error(`this page has no denoiser ${key}`);
    const data = await this.data(state), denoise = await this.denoiser(entry);
    const n = Number(state.particles), seed = Number(state.seed), { centre } = spec;
    const sigmas = spec.schedules[schedule][steps];
    const frames = await sample({ sampler, denoise, n, d, sigmas, seed, seen, centre });
    const end = frames.at(-1), near = neighbours(end, d, data.training), cells = spec.cells ** 2;
    const numbers = measure(end, d, data.training, data.reference, near);
    if ("total_variation" in entry) numbers["total variation"] = entry.total_variation;
    const flat = new Float32Array(frames.length * end.length);
    frames.forEach((frame, i) => flat.set(frame, i * frame.length));
    const generated = data.generated?.slice(entry.picture * cells, (entry.picture + 1) * cells);
    return { numbers, near, end, frames: flat, generated };
  }
}

const LAST = 2 ** 31 - 1; // a stream of noise that no step reaches

// The trainings of a lab, one for each side.
export class Trainings extends Files {
  trainings = {};

  async begin({ side, state }) {
    const { spec } = this, { low, high, size } = spec, layers = layersOf(state[side]);
    const ort = await once("runtime", loadRuntime);
    const graphs = await this.get("graphs.safetensors.gz", safetensors);
    const name = layers.degree ? `degree ${layers.degree}` : `${state[side].activation} ${state[side].depth}`;
    const opened = (kind) => once(`${spec.name} ${name} ${kind}`, () =>
      ort.InferenceSession.create(graphs[`${name} ${kind}`]));
    const sessions = { step: await opened("step"), field: await opened("field") };
    const about = {
      ...layers, low, high, size, skip: state[side].skip === "yes", seed: state.seed,
      levels: layers.apart ? spec.levels : 0, rate: Number(state.rate), until: Number(state.steps),
    };
    const truth = await this.truth(state), training = new Training(ort, sessions, about, truth.training);
    this.trainings[side] = { training, truth };
    const levels = layers.apart ? training.states.map((_, k) => training.level(k)) : [0];
    const floor = levels.map((sigma) =>
      copierLoss(truth.training, training.batch(LAST, Math.floor(2048 / levels.length), sigma)));
    const mean = floor.reduce((a, b) => a + b, 0) / levels.length;
    const weights = training.states[0].slice(0, -2).reduce((sum, { data }) => sum + data.length, 0);
    return { floor: mean, weights: weights * training.states.length };
  }

  // The points, and the laws of target and copier on the grid.
  async truth({ target, count, points }) {
    const { extent, cells, blur } = this.spec;
    const found = points.length ? {} : await this.get(`${target.replaceAll(" ", "_")}.safetensors.gz`, safetensors);
    const training = Float64Array.from(points.length ? points : found.points.subarray(0, 2 * Number(count)));
    const grid = gridPoints(extent, cells), at = (i) => grid.subarray(2 * i, 2 * i + 2);
    const copied = Float64Array.from({ length: cells ** 2 }, (_, i) => copier(training, at(i), blur).log);
    const chance = found.reference && measure(Float64Array.from(found.reference), 2, training).copies;
    return { training, grid, copied, chance, target: found.log_p, reference: found.reference };
  }

  async data({ state }) {
    const { training, target } = await this.truth(state), { cells } = this.spec;
    return { training, target: target && pictureOf(target, cells) };
  }

  // Steps for so long, or so many; their losses.
  async train({ side, milliseconds, steps = Infinity }) {
    const { training } = this.trainings[side], { until } = training.about, losses = [];
    const began = performance.now();
    while (training.step < until && losses.length < steps) {
      losses.push(await training.next());
      if (performance.now() - began > milliseconds) break;
    }
    return { step: training.step, losses, milliseconds: performance.now() - began };
  }

  // What it generates now: paths of particles, the exact density where asked, the answers on a lattice.
  async look({ side, seed, density, lattice, sigma }) {
    const { training, truth } = this.trainings[side], { spec } = this, { cells, extent } = spec;
    const field = (y, level) => training.field(y, level), denoise = async (...at) => (await field(...at)).x;
    const about = { sampler: "Heun", denoise, n: spec.particles, d: 2, sigmas: spec.sigmas, seed };
    const paths = await sample({ ...about, seen: () => {} }), end = paths.at(-1);
    const frames = new Float32Array(paths.length * end.length);
    paths.forEach((path, i) => frames.set(path, i * end.length));
    const { copies } = measure(end, 2, truth.training), within = (v) => Math.abs(v) <= extent;
    const inside = end.filter((x, i) => i % 2 === 0 && within(x) && within(end[i + 1])).length;
    const numbers = { copies, chance: truth.chance, outside: spec.particles - inside };
    const found = { frames, numbers };
    if (lattice) found.answers = await denoise(lattice, sigma);
    if (!density) return found;
    const log = await generatedLogDensity(field, truth.grid, spec.blur, spec.high, spec.density_steps);
    const cell = ((2 * extent) / cells) ** 2, apart = (other) => other && totalVariation(other, log, cell);
    return {
      // the root, so that a thin ridge does not hide the rest
      ...found, generated: pictureOf(log, cells, 0.5), target: apart(truth.target), copier: apart(truth.copied),
    };
  }
}
