// What does a denoiser do along each eigenvector of its Jacobian? The reader walks through them, keeps one whole or
// removes it, and sees the answer and its error. helpers.lab.eigen has computed everything; here it is put together.

// The change --------------------------------------------------------------------------------------------------------------
// state: per eigenvector the eigenvalue, and the coefficients of the noisy image, the clean one and the answer; the
// squared error of the answer. chosen: per eigenvector a new eigenvalue, or null for the denoiser's own.
// The answer moves by step_k e_k. The e_k are orthonormal, so the new error needs no picture:
// |x_hat + sum step_k e_k - x|^2 = |x_hat - x|^2 + sum step_k (2 <x_hat - x, e_k> + step_k).

export function reshape(state, chosen) {
  const steps = chosen.map((value, k) => (value === null ? 0 : (value - state.values[k]) * state.noisy[k]));
  const error = steps.reduce((sum, step, k) => sum + step * (2 * (state.answer[k] - state.clean[k]) + step), state.error);
  return { steps, error };
}

export const psnr = (error, pixels) => -10 * Math.log10(error / pixels);

// Which eigenvectors a press of a button changes.
export function scope(kind, k, count) {
  const [first, last] = { one: [k, k], before: [0, k], after: [k, count - 1] }[kind];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

// The panel ---------------------------------------------------------------------------------------------------------------

const MARK = "#d1495b", BAR = "#4c72b0", TOP = 100;
const CHOICES = [[null, "as the network"], [1, "keep whole"], [0, "remove"]];
const STYLE = `
.eigen { container-type: inline-size; --line: color-mix(in srgb, currentColor 30%, transparent); margin: 1em 0; font-size: .9em; color: inherit; }
.eigen, .eigen * { box-sizing: border-box; }
.eigen-controls { display: flex; flex-wrap: wrap; gap: .5em 1em; align-items: end; margin: .5em 0; }
.eigen label { display: flex; flex-direction: column; font-size: .85em; }
.eigen :is(select, input, button) { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 4px;
  padding: .2em .5em; min-height: 2em; max-width: 100%; accent-color: ${MARK}; }
.eigen button[aria-pressed=true] { border-color: ${MARK}; box-shadow: inset 0 -3px ${MARK}; }
.eigen select option { color: #222; background: #fff; }
.eigen :is(select, input, button, svg):focus-visible { outline: 2px solid #4c72b0; outline-offset: 1px; }
.eigen-stage { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6em; margin: .5em 0; }
.eigen canvas { width: 100%; display: block; border: 1px solid var(--line); image-rendering: pixelated; }
.eigen svg { width: 100%; height: 7em; display: block; cursor: pointer; color: inherit; }
.eigen p { margin: .3em 0; }
@container (max-width: 480px) { .eigen-stage { grid-template-columns: 1fr 1fr; } }`;

function put(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const h = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

class Panel {
  constructor(root, spec, caption) {
    Object.assign(this, spec, { root, spec, pixels: spec.height * spec.width });
    for (const key of ["clean", "noise", "x_hat"]) this[key] = Float64Array.from(new Int16Array(bytes(spec[key]).buffer), (v) => v / spec.unit);
    this.vectors = spec.states.map((row) => row.map(() => null)); // unpacked when first shown
    this.state = { ...spec.start, scope: "one" };
    this.chosen = Array(spec.count).fill(null);
    if (!document.getElementById("eigen-style")) document.head.append(h("style", { id: "eigen-style" }, STYLE));
    this.build(caption);
    this.update();
  }

  slider(label, key, size, spelled) {
    const range = h("input", { type: "range", min: 0, max: size - 1, step: 1, oninput: () => this.change({ [key]: Number(range.value) }) });
    const text = h("span");
    this.shows.push(() => {
      range.value = this.state[key];
      text.textContent = `${label} ${spelled(this.state[key])}`;
      range.setAttribute("aria-valuetext", spelled(this.state[key]));
    });
    return h("label", {}, text, range);
  }

  select(label, key, options) {
    const box = h("select", { onchange: () => this.change({ [key]: JSON.parse(box.value) }) },
      ...options.map(([value, text]) => h("option", { value: JSON.stringify(value) }, text)));
    this.shows.push(() => { box.value = JSON.stringify(this.state[key]); });
    return h("label", {}, label, box);
  }

  build(caption) {
    this.shows = [];
    const { count } = this;
    const buttons = CHOICES.map(([value, text]) => {
      const button = h("button", { type: "button", onclick: () => this.choose(value) }, text);
      this.shows.push(() => button.setAttribute("aria-pressed", this.chosen[this.state.k] === value));
      return button;
    });
    this.canvases = ["clean", "noisy", "answer", "eigenvector"].map(() => h("canvas", { role: "img" }));
    this.titles = this.canvases.map(() => h("div"));
    this.chart = s("svg", { tabindex: 0, role: "img", viewBox: `0 0 ${10 * count} ${TOP}`, preserveAspectRatio: "none" });
    this.chart.addEventListener("click", (event) => {
      const box = this.chart.getBoundingClientRect();
      this.change({ k: Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * count))) });
    });
    this.chart.addEventListener("keydown", (event) => {
      const moved = { ArrowLeft: -1, ArrowRight: 1 }[event.key], value = { 0: 0, 1: 1, n: null }[event.key];
      if (moved === undefined && value === undefined) return;
      event.preventDefault();
      if (moved) this.change({ k: Math.min(count - 1, Math.max(0, this.state.k + moved)) });
      else this.choose(value);
    });
    this.status = h("p", { role: "status" });
    this.root.replaceChildren(h("figure", { class: "eigen", role: "group", "aria-label": `Lab: ${caption}` },
      h("div", { class: "eigen-controls" },
        this.select("picture", "picture", this.states.map((_, i) => [i, `number ${i + 1}`])),
        this.slider("noise σ", "level", this.sigmas.length, (j) => String(this.sigmas[j])),
        this.slider("eigenvector k =", "k", count, (k) => String(k + 1))),
      h("div", { class: "eigen-stage" }, ...this.canvases.map((canvas, i) => h("div", {}, this.titles[i], canvas))),
      h("div", {}, "eigenvalues; the line is at 1. Arrow keys move; 1 keeps, 0 removes, n is the network"), this.chart,
      h("div", { class: "eigen-controls" },
        this.select("change", "scope", [["one", "this eigenvector"], ["before", "this and all before"], ["after", `this and all after, to ${count}`]]),
        ...buttons,
        h("button", { type: "button", onclick: () => { this.chosen.fill(null); this.update(); } }, "undo all")),
      this.status, caption ? h("figcaption", {}, caption) : ""));
  }

  change(part) {
    Object.assign(this.state, part);
    this.update();
  }

  choose(value) {
    for (const k of scope(this.state.scope, this.state.k, this.count)) this.chosen[k] = value;
    this.update();
  }

  // The eigenvectors of the chosen picture and level, count * pixels.
  basis() {
    const { picture, level } = this.state, { vectors, peaks } = this.states[picture][level];
    this.vectors[picture][level] ??= Float64Array.from(new Int8Array(bytes(vectors).buffer), (v, i) => (v * peaks[Math.floor(i / this.pixels)]) / 127);
    return this.vectors[picture][level];
  }

  update() {
    for (const show of this.shows) show();
    const { pixels, noise, sigmas } = this, { picture, level, k } = this.state, now = this.states[picture][level];
    const { steps, error } = (this.found = reshape(now, this.chosen)), basis = this.basis(), sigma = sigmas[level];
    const x = this.clean.subarray(picture * pixels, (picture + 1) * pixels), y = x.map((v, p) => v + sigma * noise[p]);
    const at = (picture * sigmas.length + level) * pixels, x_hat = this.x_hat.slice(at, at + pixels);
    steps.forEach((step, i) => { if (step) for (let p = 0; p < pixels; p++) x_hat[p] += step * basis[i * pixels + p]; });
    const e = basis.subarray(k * pixels, (k + 1) * pixels), db = (v) => `${psnr(v, pixels).toFixed(2)} dB`;
    const changed = this.chosen.filter((v) => v !== null).length, fixed = (v) => v.toFixed(2).replace("-", "−");
    const shown = [
      ["clean", x, 1, "The clean picture, which the network does not see"],
      [`noisy, σ = ${sigma}`, y, 1 / Math.sqrt(1 + 4 * sigma ** 2), `The picture with noise of level ${sigma}`],
      [changed ? `answer, ${changed} changed` : "network's answer", x_hat, 1, `The answer, ${db(error)}`],
      [`eigenvector ${k + 1}`, e.map((v) => 0.5 + v / (2 * now.peaks[k])), 1, `Eigenvector ${k + 1}, zero is mid-gray`],
    ];
    shown.forEach(([title, values, shrink, label], i) => {
      this.titles[i].textContent = title;
      this.draw(this.canvases[i], values, shrink);
      this.canvases[i].setAttribute("aria-label", label);
    });
    this.bars(now.values);
    this.status.textContent = `Eigenvector ${k + 1}: eigenvalue ${fixed(now.values[k])}. Along it the noisy image has ${fixed(now.noisy[k])}, ` +
      `the clean one ${fixed(now.clean[k])}, the network's answer ${fixed(now.answer[k])}, this answer ${fixed(now.answer[k] + steps[k])}. ` +
      `PSNR ${db(error)}, the network's own ${db(now.error)}.`;
  }

  bars(values) {
    const { k } = this.state, highest = 1.1 * Math.max(1, ...values), y = (v) => TOP * (1 - Math.max(0, v) / highest);
    this.chart.replaceChildren(...values.flatMap((own, i) => {
      const value = this.chosen[i] ?? own, mine = i === k ? MARK : BAR;
      return [
        s("rect", { x: 10 * i + 1, y: y(own), width: 8, height: TOP - y(own), fill: mine, opacity: this.chosen[i] === null ? 1 : 0.3 }),
        this.chosen[i] === null ? "" : s("rect", { x: 10 * i + 1, y: y(value) - 1.5, width: 8, height: 3, fill: mine }),
      ];
    }), s("line", { x1: 0, x2: 10 * values.length, y1: y(1), y2: y(1), stroke: "currentColor", "stroke-dasharray": "3 3", "vector-effect": "non-scaling-stroke" }));
    this.chart.setAttribute("aria-label", `Eigenvalues 1 to ${values.length}, from ${values[0].toFixed(2)} to ${values.at(-1).toFixed(2)}; ` +
      `number ${k + 1} is marked. Arrow keys move the mark; 1 keeps, 0 removes, n gives back the network's.`);
  }

  // Noise around 1/2 is shrunk to the range; values outside [0, 1] are drawn black or white.
  draw(canvas, values, shrink) {
    Object.assign(canvas, { width: this.width, height: this.height });
    const image = new ImageData(this.width, this.height);
    values.forEach((v, p) => image.data.set([0, 0, 0].fill(255 * (0.5 + shrink * (v - 0.5))).concat(255), 4 * p));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

// The page's element ------------------------------------------------------------------------------------------------------

if (typeof HTMLElement !== "undefined" && typeof customElements !== "undefined" && !customElements.get("eigen-shrinkage")) {
  customElements.define("eigen-shrinkage", class extends HTMLElement {
    connectedCallback() {
      if (this.panel) return;
      const spec = JSON.parse(this.querySelector("script").textContent);
      this.panel = new Panel(this, spec, this.querySelector("figcaption")?.textContent ?? "");
    }
  });
}

// Jupyter and Colab
export default {
  render({ model, el }) {
    const root = h("div", {});
    el.append(root);
    new Panel(root, model.get("spec"), model.get("caption"));
  },
};
