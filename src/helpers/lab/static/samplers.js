// The samplers of helpers.sampling. denoise(y, sigma) -> x_hat, both Float64Array of n * d numbers.
// A particle that leaves is NaN and stays NaN.

import { normal } from "./noise.js";

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
    const x = await denoise(y, sigma), eps = y.map((v, i) => (v - x[i]) / sigma);
    const old = memory.eps ?? eps;
    memory.eps = eps;
    return y.map((v, i) => v + (after - sigma) * (2 * eps[i] - old[i]));
  },
};

// The start and every later point, a Float64Array each; `seen(step, y)` is awaited after each step.
export async function sample({ sampler, denoise, n, d, sigmas, seed, seen, centre = 0 }) {
  let y = normal(n * d, seed).map((v) => centre + sigmas[0] * v);
  const frames = [y], memory = {}, limit = DIVERGED * sigmas[0];
  for (let step = 1; step < sigmas.length; step++) {
    const [sigma, after] = sigmas.slice(step - 1);
    const parts = { denoise, y, sigma, after, d, limit, seed, step, memory };
    y = settle(await STEPS[sampler](parts), d, limit);
    frames.push(y);
    await seen(step, y);
  }
  return frames;
}
