// What does a denoiser do along each eigenvector of its Jacobian? The reader walks through them,
// keeps one whole or removes it, and sees the answer and its error. helpers.lab.eigen has computed
// everything; here it is put together.

import { bytes, clamp, COLOURS, h, paint, range, svg } from "./dom.js";
import { Panel } from "./panel.js";

// state: per eigenvector the eigenvalue, and the coefficients of the noisy image, the clean one and
// the answer; the squared error of the answer. chosen: per eigenvector a new eigenvalue, or null
// for the denoiser's own. The answer moves by step_k e_k. The e_k are orthonormal, so that the new
// error needs no picture:
// |x_hat + sum step_k e_k - x|^2 = |x_hat - x|^2 + sum step_k (2 <x_hat - x, e_k> + step_k).
export function reshape({ values, noisy, clean, answer, error }, chosen) {
  const steps = chosen.map((v, k) => (v === null ? 0 : (v - values[k]) * noisy[k]));
  const more = (sum, step, k) => sum + step * (2 * (answer[k] - clean[k]) + step);
  return { steps, error: steps.reduce(more, error) };
}

export const psnr = (error, pixels) => -10 * Math.log10(error / pixels);

// Red and blue about white by the root of the size, three channels in [0, 1]: darkest red at `most`
// and beyond, or where none is given at the value farthest from zero, as `plots.signed`. The
// colours are ColorBrewer's RdBu.
const RED_BLUE = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
];

export function redAndBlue(vector, most = 0) {
  const farthest = (so, v) => (Math.abs(v) > Math.abs(so) ? v : so);
  const peak = most || vector.reduce(farthest, 0) || 1;
  const channels = new Float64Array(3 * vector.length);
  vector.forEach((v, p) => {
    const place = 5 + 5 * Math.sign(v / peak) * Math.min(1, Math.sqrt(Math.abs(v / peak)));
    const below = Math.min(Math.floor(place), 9), part = place - below;
    for (let c = 0; c < 3; c++) {
      const [from, to] = [RED_BLUE[below][c], RED_BLUE[below + 1][c]];
      channels[c * vector.length + p] = (from + part * (to - from)) / 255;
    }
  });
  return channels;
}

// Which eigenvectors a press of a button changes.
export function scope(kind, k, count) {
  const [first, last] = { one: [k, k], before: [0, k], after: [k, count - 1] }[kind];
  return range(count).slice(first, last + 1);
}

const TOP = 100, BAR = 10; // height of the chart, and the width that each eigenvalue has in it
const CHOICES = [[null, "as the network"], [1, "keep whole"], [0, "remove"]];
const KEYS = { 0: 0, 1: 1, n: null };
const HELP = "eigenvalues; the line is at 1. Arrow keys move; 1 keeps, 0 removes, n is the network";

export class Eigen extends Panel {
  constructor(root, spec, caption) {
    super(root, spec, caption);
    const { height, width, count, unit } = spec, chosen = Array(count).fill(null);
    const [clean, noise, answers] = [spec.clean, spec.noise, spec.x_hat].map((text) =>
      Float64Array.from(new Int16Array(bytes(text).buffer), (v) => v / unit));
    const vectors = spec.states.map((row) => row.map(() => null)); // unpacked when first shown
    Object.assign(this, { count, chosen, clean, noise, answers, vectors, pixels: height * width });
    this.state.scope = "one";
    this.build();
    this.change({});
  }

  build() {
    const { count } = this, { states, sigmas } = this.spec;
    const after = `this and all after, to ${count}`;
    const scopes = { one: "this eigenvector", before: "this and all before", after };
    this.canvases = range(4).map(() => h("canvas", { role: "img" }));
    this.titles = this.canvases.map(() => h("div"));
    this.status = h("p", { role: "status" });
    this.fill("eigen",
      h("div", { class: "lab-controls" },
        this.select("picture", "picture", range(states.length), (i) => `number ${i + 1}`),
        this.slider("noise σ", "level", range(sigmas.length), (j) => String(sigmas[j])),
        this.slider("eigenvector k =", "k", range(count), (k) => String(k + 1))),
      h("div", { class: "eigen-stage" },
        ...this.canvases.map((canvas, i) => h("div", {}, this.titles[i], canvas))),
      h("div", {}, HELP),
      this.buildChart(),
      h("div", { class: "lab-controls" },
        this.select("change", "scope", Object.keys(scopes), (kind) => scopes[kind]),
        ...CHOICES.map(([value, text]) => this.choice(value, text)),
        this.button("undo all", () => this.undo())),
      this.status);
  }

  choice(value, text) {
    const button = this.button(text, () => this.choose(value));
    const pressed = () => this.chosen[this.state.k] === value;
    this.shows.push(() => button.setAttribute("aria-pressed", pressed()));
    return button;
  }

  buildChart() {
    const { count } = this, viewBox = `0 0 ${BAR * count} ${TOP}`;
    this.chart = svg("svg", { viewBox, preserveAspectRatio: "none", tabindex: 0, role: "img" });
    this.chart.onclick = ({ clientX }) => {
      const { left, width } = this.chart.getBoundingClientRect();
      this.move(Math.floor(((clientX - left) / width) * count));
    };
    this.chart.onkeydown = (event) => {
      const moved = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!moved && !(event.key in KEYS)) return;
      event.preventDefault();
      if (moved) this.move(this.state.k + moved);
      else this.choose(KEYS[event.key]);
    };
    return this.chart;
  }

  move(k) { this.change({ k: clamp(k, 0, this.count - 1) }); }

  choose(value) {
    for (const k of scope(this.state.scope, this.state.k, this.count)) this.chosen[k] = value;
    this.change({});
  }

  undo() {
    this.chosen.fill(null);
    this.change({});
  }

  // The eigenvectors of the chosen picture and level, count * pixels.
  basis() {
    const { picture, level } = this.state, { vectors, peaks } = this.spec.states[picture][level];
    const unpacked = (v, i) => (v * peaks[Math.floor(i / this.pixels)]) / 127;
    const made = () => Float64Array.from(new Int8Array(bytes(vectors).buffer), unpacked);
    return (this.vectors[picture][level] ??= made());
  }

  update() {
    const { pixels, chosen } = this, { picture, level, k } = this.state;
    const { states, sigmas } = this.spec, now = states[picture][level], sigma = sigmas[level];
    const basis = this.basis(), { steps, error } = reshape(now, chosen);
    const part = (all, i) => all.slice(i * pixels, (i + 1) * pixels);
    const x = part(this.clean, picture), y = x.map((v, p) => v + sigma * this.noise[p]);
    const x_hat = part(this.answers, picture * sigmas.length + level);
    steps.forEach((step, i) => {
      if (step) for (let p = 0; p < pixels; p++) x_hat[p] += step * basis[i * pixels + p];
    });
    const e = redAndBlue(part(basis, k));
    const changed = chosen.filter((v) => v !== null).length;
    const answer = changed ? `answer, ${changed} changed` : "network's answer";
    const db = (v) => `${psnr(v, pixels).toFixed(2)} dB`;
    this.draw([
      ["clean", x, "The clean picture, which the network does not see"],
      [`noisy, σ = ${sigma}`, y, `The picture with noise of level ${sigma}`, sigma],
      [answer, x_hat, `The answer, ${db(error)}`],
      [`eigenvector ${k + 1}`, e, `Eigenvector ${k + 1}, zero is white`],
    ]);
    this.drawBars(now.values);
    const [value, noisy, clean, own, here] = [
      now.values[k], now.noisy[k], now.clean[k], now.answer[k], now.answer[k] + steps[k],
    ].map((v) => v.toFixed(2).replace("-", "−"));
    this.status.textContent = `Eigenvector ${k + 1}: eigenvalue ${value}. Along it the noisy ` +
      `image has ${noisy}, the clean one ${clean}, the network's answer ${own}, this answer ` +
      `${here}. PSNR ${db(error)}, the network's own ${db(now.error)}.`;
  }

  draw(shown) {
    const { height, width } = this.spec;
    shown.forEach(([title, image, label, sigma], i) => {
      this.titles[i].textContent = title;
      this.canvases[i].setAttribute("aria-label", label);
      paint(this.canvases[i], image, [height, width], sigma);
    });
  }

  drawBars(values) {
    const { k } = this.state, highest = 1.1 * Math.max(1, ...values);
    const y = (v) => TOP * (1 - Math.max(0, v) / highest);
    const bars = values.flatMap((own, i) => {
      const fill = i === k ? COLOURS.particle : COLOURS.target, value = this.chosen[i];
      const place = { x: BAR * i + 1, width: BAR - 2, fill };
      const bar = { ...place, y: y(own), height: TOP - y(own) };
      if (value === null) return [svg("rect", bar)];
      const mark = { ...place, y: y(value) - 1.5, height: 3 };
      return [svg("rect", { ...bar, opacity: 0.3 }), svg("rect", mark)];
    });
    const one = { x1: 0, x2: BAR * values.length, y1: y(1), y2: y(1), class: "eigen-one" };
    this.chart.replaceChildren(...bars, svg("line", one));
    const [first, last] = [values[0], values.at(-1)].map((v) => v.toFixed(2));
    this.chart.setAttribute("aria-label", `Eigenvalues 1 to ${values.length}, from ${first} to ` +
      `${last}; number ${k + 1} is marked. Arrow keys move the mark; 1 keeps, 0 removes, n gives ` +
      "back the network's.");
  }
}
