// Networks of the plane that train in the page: helpers.lab.steps, to the same start and batches.

import { normal, threefry } from "./noise.js";

export function uniform(count, seed, stream) {
  const u = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
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

// What a training is: widths of hidden layers or a degree, hears, skip, levels (0: one network for
// all), rate, seed, until (the step at which the rate, falling as a cosine, is 0), size of a batch.
export function layersOf({ kind, width, depth, narrow, degree, level }) {
  const polynomial = { widths: [], degree: Number(degree), hears: true, apart: true };
  if (kind === "polynomial") return polynomial;
  const widths = Array.from({ length: Number(depth) }, () => Number(width));
  if (narrow !== "none") widths[depth >> 1] = Number(narrow);
  return { widths, degree: 0, hears: level !== "not told", apart: level === "one each" };
}

export class Training {
  losses = [];

  constructor(ort, sessions, about, points) {
    Object.assign(this, { ort, sessions, about, points });
    const { widths, degree, levels, seed } = about;
    const first = degree ? ((degree + 1) * (degree + 2)) / 2 - 1 : 3;
    const sizes = [first, ...widths, 2];
    this.shapes = sizes.slice(1).flatMap((size, i) => [[size, sizes[i]], [size]]);
    const count = Math.max(1, levels);
    const all = Array.from({ length: count }, () => this.shapes).flat();
    const weights = startingWeights(all, seed), { length } = this.shapes;
    const total = this.shapes.reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const shapes = [...this.shapes, [total], [total]];
    this.states = Array.from({ length: count }, (_, k) => {
      const own = weights.slice(k * length, (k + 1) * length);
      const numbers = [...own, new Float32Array(total), new Float32Array(total)];
      return numbers.map((values, i) => new ort.Tensor("float32", values, shapes[i]));
    });
  }

  get step() { return this.losses.length; }

  level(k) {
    const { low, high } = this.about;
    return low * (high / low) ** (k / Math.max(1, this.states.length - 1));
  }

  // D(y, sigma) = a y + b F(c y, t); the size of the data is 1.
  coefficients(sigma) {
    const { hears, skip } = this.about, r = Math.sqrt(1 + sigma ** 2);
    const [c, t] = hears ? [1 / r, Math.log(sigma) / 4] : [1, 0];
    if (!skip) return [0, 1, c, t];
    return hears ? [1 / r ** 2, sigma / r, c, t] : [1, 1, c, t];
  }

  batch(step, size = this.about.size, sigma = 0) {
    const { seed, low, high } = this.about, { points } = this, count = points.length / 2;
    const made = new Float32Array(size * 9);
    const u = uniform(size, seed, step), n = normal(2 * size, seed, step);
    for (let i = 0; i < size; i++) {
      const level = sigma || low * (high / low) ** u[2 * i + 1];
      const x = points.subarray(2 * Math.floor(u[2 * i] * count)).subarray(0, 2);
      const y = [x[0] + level * n[2 * i], x[1] + level * n[2 * i + 1]];
      made.set([...x, ...y, ...this.coefficients(level), 1 + level ** -2], 9 * i);
    }
    return made;
  }

  // What that step takes, counted from 1.
  rows(step) {
    const { levels, size } = this.about;
    return this.batch(step, size, levels ? this.level((step - 1) % levels) : 0);
  }

  // One step; the loss of its batch before it.
  async next() {
    const { ort, sessions, states, about } = this, { Tensor } = ort, { step: session } = sessions;
    const step = this.step + 1, k = this.step % states.length, { length } = states[k];
    const left = about.until ? (1 + Math.cos((Math.PI * (step - 1)) / about.until)) / 2 : 1;
    const feeds = this.named(session, k, length);
    feeds.step = new Tensor("float64", [Math.floor(this.step / states.length) + 1], []);
    feeds.rate = new Tensor("float64", [about.rate * left], []);
    feeds.batch = new Tensor("float32", this.rows(step), [about.size, 9]);
    const found = await session.run(feeds), loss = found.loss.data[0];
    if (!Number.isFinite(loss)) {
      throw new Error(`the loss is ${loss} at step ${step}: lower the learning rate`);
    }
    states[k] = session.outputNames.slice(0, length).map((name) => found[name]);
    this.losses.push(loss);
    return loss;
  }

  named(session, k, length) {
    const tensors = this.states[k].slice(0, length);
    return Object.fromEntries(tensors.map((tensor, i) => [session.inputNames[i], tensor]));
  }

  weights() {
    const { length } = this.shapes;
    return this.states.map((state) => state.slice(0, length).map(({ data }) => data));
  }

  // D and the trace of its Jacobian at points y, at one level; between two levels both, in parts.
  async field(y, sigma) {
    const last = this.states.length - 1, { low, high } = this.about;
    const at = Math.min(Math.max((last * Math.log(sigma / low)) / Math.log(high / low), 0), last);
    const below = Math.min(Math.floor(at), Math.max(0, last - 1));
    if (last === 0 || at === below) return this.answer(y, sigma, below);
    const [a, b] = [await this.answer(y, sigma, below), await this.answer(y, sigma, below + 1)];
    const mix = (u, v) => u.map((value, i) => (1 - at + below) * value + (at - below) * v[i]);
    return { x: mix(a.x, b.x), trace: mix(a.trace, b.trace) };
  }

  async answer(y, sigma, k) {
    const count = y.length / 2, made = new Float32Array(6 * count), c = this.coefficients(sigma);
    for (let i = 0; i < count; i++) {
      made[6 * i] = Number.isFinite(y[2 * i]) ? y[2 * i] : 0;
      made[6 * i + 1] = Number.isFinite(y[2 * i + 1]) ? y[2 * i + 1] : 0;
      made.set(c, 6 * i + 2);
    }
    const session = this.sessions.field, feeds = this.named(session, k, this.shapes.length);
    feeds.rows = new this.ort.Tensor("float32", made, [count, 6]);
    const { x_hat, trace } = await session.run(feeds);
    return { x: Float64Array.from(x_hat.data), trace: Float64Array.from(trace.data) };
  }
}
