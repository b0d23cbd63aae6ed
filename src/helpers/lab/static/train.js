// Training in a worker: the steps of helpers.lab.steps, from the same start, on the same batches.
// A worker runs this file joined with noise.js. It is told {open}, {run: steps} or {pause}.

import { normal, threefry } from "./noise.js";

const SHOWN = 50; // milliseconds between two reports, and the longest wait for a pause

export function uniform(rows, seed, stream) {
  const u = new Float64Array(2 * rows);
  for (let i = 0; i < rows; i++) {
    u.set(threefry(seed, stream, i, 1).map((word) => (word + 0.5) / 2 ** 32), 2 * i);
  }
  return u;
}

// Parameters of linear layers, weight and bias in turns, by their shapes.
export function startingWeights(shapes, seed) {
  const sizes = shapes.map((shape) => shape.reduce((a, b) => a * b, 1));
  const u = uniform(Math.ceil(sizes.reduce((a, b) => a + b, 0) / 2), seed, 0);
  let used = 0, root = 1;
  return shapes.map((shape, k) => {
    if (shape.length === 2) root = Math.sqrt(shape[1]);
    return Float32Array.from({ length: sizes[k] }, () => (2 * u[used++] - 1) / root);
  });
}

export function batchOf(points, d, size, step, seed) {
  const rows = new Float32Array(size * (2 * d + 1)), count = points.length / d;
  const u = uniform(size, seed, step), n = normal(size * d, seed, step);
  for (let i = 0; i < size; i++) {
    const x = Math.floor(u[2 * i] * count) * d, at = i * (2 * d + 1);
    for (let j = 0; j < d; j++) {
      rows[at + j] = points[x + j];
      rows[at + d + j] = n[i * d + j];
    }
    rows[at + 2 * d] = u[2 * i + 1];
  }
  return rows;
}

export class Training {
  // about: shapes of the parameters, points and their dimension d, size of a batch, rate, seed, and
  // until: the step at which the rate, falling as a cosine, is 0; without it the rate stays.
  constructor(ort, session, about) {
    Object.assign(this, { ort, session, about, step: 0 });
    const weights = startingWeights(about.shapes, about.seed);
    const total = weights.reduce((sum, { length }) => sum + length, 0);
    const numbers = [...weights, new Float32Array(total), new Float32Array(total)];
    const shapes = [...about.shapes, [total], [total]];
    this.state = numbers.map((values, i) => new ort.Tensor("float32", values, shapes[i]));
  }

  weights() { return this.state.slice(0, -2).map(({ data }) => Float32Array.from(data)); }

  // One step; the loss of its batch. Where that is not finite, all stays as it was.
  async next() {
    const { ort, session, state } = this, { points, d, size, rate, seed, until } = this.about;
    const step = this.step + 1, names = session.inputNames, { length } = state, { Tensor } = ort;
    const left = until ? (1 + Math.cos((Math.PI * (step - 1)) / until)) / 2 : 1;
    const feeds = Object.fromEntries(state.map((tensor, i) => [names[i], tensor]));
    feeds.step = new Tensor("float64", [step], []);
    feeds.rate = new Tensor("float64", [rate * left], []);
    feeds.batch = new Tensor("float32", batchOf(points, d, size, step, seed), [size, 2 * d + 1]);
    const found = await session.run(feeds), loss = found.loss.data[0];
    if (!Number.isFinite(loss)) {
      throw new Error(`the loss is ${loss} at step ${step}: lower the learning rate`);
    }
    this.state = session.outputNames.slice(0, length).map((name) => found[name]);
    this.step = step;
    return loss;
  }
}

async function unpacked(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is not there: the server answered ${answer.status}`);
  const bytes = await answer.blob(), [a, b] = new Uint8Array(await bytes.slice(0, 2).arrayBuffer());
  const packed = a === 0x1f && b === 0x8b; // unless the server has unpacked it
  const stream = bytes.stream();
  const plain = packed ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
  return new Response(plain).arrayBuffer();
}

async function open({ graph, ...about }) {
  const here = (file) => new URL(file, import.meta.url).href;
  const ort = await import(here("ort/ort.wasm.bundle.min.mjs"));
  ort.env.wasm.wasmBinary ??= await unpacked(here("ort/ort-wasm-simd-threaded.wasm.gz"));
  ort.env.wasm.numThreads = 1; // more need headers that a static page does not have
  const session = await ort.InferenceSession.create(await unpacked(graph));
  return new Training(ort, session, about);
}

// Lets messages in. Timers would wait 4 ms.
const breath = () => new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); resolve(); };
  port2.postMessage(0);
});

export class Loop {
  turn = 0;
  queue = Promise.resolve();

  constructor(tell) { this.tell = tell; }

  // One word after the other; a new one ends the run before it.
  hear(asked) {
    const turn = ++this.turn;
    const done = this.queue.then(() => this.obey(asked, () => turn === this.turn));
    this.queue = done.catch(({ message }) => this.tell({ error: message }));
    return this.queue;
  }

  async obey(asked, last) {
    if (asked.open) {
      this.training = null;
      this.training = await open(asked.open);
      this.report([], false);
    } else if (asked.run) {
      if (!this.training) throw new Error("there is no training: open one first");
      await this.run(asked.run, last);
    }
  }

  async run(steps, last) {
    let losses = [], error, shown = performance.now();
    try {
      for (let i = 0; i < steps && last(); i++) {
        losses.push(await this.training.next());
        if (performance.now() - shown < SHOWN) continue;
        this.report(losses, true);
        losses = [];
        await breath();
        shown = performance.now();
      }
    } catch ({ message }) {
      error = message;
    }
    this.report(losses, false, error);
  }

  // Losses since the last report, and the weights now.
  report(losses, running, error) {
    const { training } = this, weights = training.weights();
    this.tell({ step: training.step, losses, running, weights, ...(error && { error }) });
  }
}

const { DedicatedWorkerGlobalScope: Scope } = globalThis;
if (Scope && globalThis instanceof Scope) {
  const loop = new Loop((answer) => postMessage(answer));
  globalThis.onmessage = ({ data }) => loop.hear(data);
}
