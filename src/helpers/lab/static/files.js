// What a lab of the page loads: its manifest, arrays, and denoisers for the ONNX runtime.

import { measure, neighbours } from "./measures.js";
import { sample } from "./samplers.js";

export const inside = (file) => new URL(file, import.meta.url);

const failed = (words) => (error) => { throw new Error(`${words}: ${error.message}`); };

async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Files named .gz are unpacked here, unless the server has done it already.
async function download(url) {
  const { pathname } = url;
  const remedy = `could not load ${pathname}, press again when the network is there`;
  const answer = await fetch(url).catch(failed(remedy));
  if (!answer.ok) throw new Error(`${pathname} is not there: the server answered ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return pathname.endsWith(".gz") && bytes[0] === 0x1f && bytes[1] === 0x8b ? unzip(bytes) : bytes;
}

export async function loadRuntime() {
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
export function once(key, make) {
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
    const denoise = await this.denoiser(entry); // first, so that pictures come first
    const coming = this.data(state); // which nothing needs before the end
    coming.catch(() => {}); // awaited there
    const n = Number(state.particles), seed = Number(state.seed), { centre } = spec;
    const sigmas = spec.schedules[schedule][steps];
    const frames = await sample({ sampler, denoise, n, d, sigmas, seed, seen, centre });
    const data = await coming;
    const end = frames.at(-1), near = neighbours(end, d, data.training), cells = spec.cells ** 2;
    const numbers = measure(end, d, data.training, data.reference, near);
    if ("total_variation" in entry) numbers["total variation"] = entry.total_variation;
    const flat = new Float32Array(frames.length * end.length);
    frames.forEach((frame, i) => flat.set(frame, i * frame.length));
    const generated = data.generated?.slice(entry.picture * cells, (entry.picture + 1) * cells);
    return { numbers, near, end, frames: flat, generated };
  }
}
