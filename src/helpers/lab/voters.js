// Who votes for a pixel? The reader clicks a pixel of a noisy image and sees the training patches that decide its
// estimate, with their weights. All is computed here, from the training images that the element carries.

// The vote --------------------------------------------------------------------------------------------------------------
// images: bytes, N * height * width, 255 times as large as x. y: height * width numbers. The window of side `side` around
// (row, column) is cut at the border. Machines as in helpers.kernels.local: "local" compares it with the patches at its
// own place, "equivariant" with those at all places that lie inside an image, on the pixels that the window has.

export function vote({ images, y, height, width, row, column, side, sigma, machine }) {
  const reach = (side - 1) / 2, d = height * width, n = images.length / d, voters = [];
  const [top, left] = [Math.max(-reach, -row), Math.max(-reach, -column)];
  const [bottom, right] = [Math.min(reach, height - 1 - row), Math.min(reach, width - 1 - column)];
  const everywhere = machine === "equivariant";
  const [r0, r1] = everywhere ? [reach, height - 1 - reach] : [row, row];
  const [c0, c1] = everywhere ? [reach, width - 1 - reach] : [column, column];
  let best = Infinity;
  for (let image = 0; image < n; image++) {
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        let distance = 0;
        for (let i = top; i <= bottom; i++) {
          const here = (row + i) * width + column, there = image * d + (r + i) * width + c;
          for (let j = left; j <= right; j++) distance += (y[here + j] - images[there + j] / 255) ** 2;
        }
        best = Math.min(best, distance);
        voters.push({ image, row: r, column: c, weight: distance, value: images[image * d + r * width + c] / 255 });
      }
    }
  }
  let total = 0, squares = 0, estimate = 0;
  for (const voter of voters) total += voter.weight = Math.exp((best - voter.weight) / (2 * sigma ** 2));
  for (const voter of voters) {
    voter.weight /= total;
    squares += voter.weight ** 2;
    estimate += voter.weight * voter.value;
  }
  return { estimate, effective: 1 / squares, count: voters.length, voters: voters.sort((a, b) => b.weight - a.weight) };
}

// The local machine's estimate of every pixel, by running sums of squares along rows and columns.
export function localMean({ images, y, height, width, side, sigma }) {
  const reach = (side - 1) / 2, d = height * width, n = images.length / d;
  const distances = new Float64Array(n * d), best = new Float64Array(d).fill(Infinity);
  const sums = (from, at, step, size, to) => { // of windows along one row or column
    const total = new Float64Array(size + 1);
    for (let i = 0; i < size; i++) total[i + 1] = total[i] + from[at + i * step];
    for (let i = 0; i < size; i++) to[at + i * step] = total[Math.min(size, i + reach + 1)] - total[Math.max(0, i - reach)];
  };
  for (let image = 0; image < n; image++) {
    const squares = Float64Array.from({ length: d }, (_, p) => (y[p] - images[image * d + p] / 255) ** 2);
    const across = new Float64Array(d), found = distances.subarray(image * d, (image + 1) * d);
    for (let r = 0; r < height; r++) sums(squares, r * width, 1, width, across);
    for (let c = 0; c < width; c++) sums(across, c, width, height, found);
    for (let p = 0; p < d; p++) best[p] = Math.min(best[p], found[p]);
  }
  const total = new Float64Array(d), mean = new Float64Array(d);
  for (let k = 0; k < n * d; k++) {
    const p = k % d, weight = Math.exp((best[p] - distances[k]) / (2 * sigma ** 2));
    total[p] += weight;
    mean[p] += (weight * images[k]) / 255;
  }
  return mean.map((sum, p) => sum / total[p]);
}

// The panel -------------------------------------------------------------------------------------------------------------

const SHOWN = 8, MARK = "#d1495b";
const STYLE = `
.voters { container-type: inline-size; --line: color-mix(in srgb, currentColor 30%, transparent); margin: 1em 0; font-size: .9em; color: inherit; }
.voters, .voters * { box-sizing: border-box; }
.voters-controls { display: flex; flex-wrap: wrap; gap: .5em 1em; align-items: end; margin: .5em 0; }
.voters label { display: flex; flex-direction: column; font-size: .85em; }
.voters :is(select, input) { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 4px;
  padding: .2em .4em; min-height: 2em; max-width: 100%; accent-color: ${MARK}; }
.voters select option { color: #222; background: #fff; }
.voters input[type=number] { width: 5em; }
.voters :is(select, input, canvas):focus-visible { outline: 2px solid #4c72b0; outline-offset: 1px; }
.voters-stage { display: grid; grid-template-columns: 1fr 1fr 2fr; gap: .8em; align-items: start; }
.voters canvas { width: 100%; display: block; border: 1px solid var(--line); image-rendering: pixelated; }
.voters-noisy { cursor: crosshair; }
.voters-list { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4em; list-style: none; margin: 0; padding: 0; font-size: .85em; text-align: center; }
.voters-list li { margin: 0; }
.voters p { margin: .3em 0; }
@container (max-width: 560px) { .voters-stage { grid-template-columns: 1fr 1fr; } .voters-stage > :last-child { grid-column: 1 / -1; } }`;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

class Voters {
  constructor(root, spec, caption) {
    Object.assign(this, spec, { root, spec, images: bytes(spec.images), clean: bytes(spec.clean) });
    this.noise = new Float32Array(bytes(spec.noise).buffer);
    this.state = { ...spec.start };
    if (!document.getElementById("voters-style")) document.head.append(h("style", { id: "voters-style" }, STYLE));
    this.build(caption);
    this.update();
  }

  slider(label, key, values) {
    const range = h("input", { type: "range", min: 0, max: values.length - 1, step: 1,
      oninput: () => this.change({ [key]: values[Number(range.value)] }) });
    const text = h("span");
    this.shows.push(() => {
      range.value = values.indexOf(this.state[key]);
      text.textContent = `${label} ${this.spelled(key)}`;
      range.setAttribute("aria-valuetext", this.spelled(key));
    });
    return h("label", {}, text, range);
  }

  number(label, key, size) {
    const box = h("input", { type: "number", min: 1, max: size, step: 1,
      onchange: () => this.change({ [key]: Math.min(Math.max(Math.trunc(box.valueAsNumber) || 1, 1), size) - 1 }) });
    this.shows.push(() => { box.value = this.state[key] + 1; });
    return h("label", {}, label, box);
  }

  select(label, key, options) {
    const box = h("select", { onchange: () => this.change({ [key]: JSON.parse(box.value) }) },
      ...options.map(([value, text]) => h("option", { value: JSON.stringify(value) }, text)));
    this.shows.push(() => { box.value = JSON.stringify(this.state[key]); });
    return h("label", {}, label, box);
  }

  build(caption) {
    this.shows = [];
    const { height, width } = this, pictures = this.clean.length / (height * width);
    this.noisy = h("canvas", { class: "voters-noisy", role: "img", tabindex: 0 });
    this.answer = h("canvas", { role: "img" });
    this.list = h("ol", { class: "voters-list", "aria-label": "the strongest voters" });
    this.status = h("p", { role: "status" });
    this.noisy.addEventListener("click", (event) => this.change({
      row: Math.min(height - 1, Math.floor((event.offsetY / this.noisy.clientHeight) * height)),
      column: Math.min(width - 1, Math.floor((event.offsetX / this.noisy.clientWidth) * width)) }));
    this.noisy.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      this.change({ row: Math.min(Math.max(this.state.row + move[0], 0), height - 1), column: Math.min(Math.max(this.state.column + move[1], 0), width - 1) });
    });
    this.answerTitle = h("div");
    this.root.replaceChildren(h("figure", { class: "voters", role: "group", "aria-label": `Lab: ${caption}` },
      h("div", { class: "voters-controls" },
        this.select("machine", "machine", [["local", "local (LS)"], ["equivariant", "equivariant (ELS)"]]),
        this.slider("window side", "side", this.sides), this.slider("noise σ", "sigma", this.sigmas),
        this.select("picture", "picture", Array.from({ length: pictures }, (_, i) => [i, `test image ${i + 1}`])),
        this.number("row", "row", height), this.number("column", "column", width)),
      h("div", { class: "voters-stage" },
        h("div", {}, h("div", {}, "noisy: click a pixel"), this.noisy),
        h("div", {}, this.answerTitle, this.answer),
        h("div", {}, h("div", {}, "strongest voters"), this.list)),
      this.status, caption ? h("figcaption", {}, caption) : ""));
  }

  spelled(key) {
    const { side, sigma } = this.state;
    if (key === "sigma") return String(sigma);
    return side > this.height ? "whole image" : String(side);
  }

  change(part) {
    Object.assign(this.state, part);
    const whole = this.sides.filter((s) => s <= Math.min(this.height, this.width));
    // patches of the equivariant machine lie inside an image
    if (this.state.machine === "equivariant" && !whole.includes(this.state.side)) this.state.side = whole.at(-1);
    this.update();
  }

  y() {
    const { picture, sigma } = this.state, d = this.height * this.width;
    return Float64Array.from({ length: d }, (_, p) => this.clean[picture * d + p] / 255 + sigma * this.noise[p]);
  }

  update() {
    for (const show of this.shows) show();
    const { state, images, height, width } = this, y = this.y(), common = { images, y, height, width, ...state };
    const found = (this.found = vote(common)), mark = [state.row, state.column];
    this.draw(this.noisy, y, this.window(...mark), 1 / Math.sqrt(1 + 4 * state.sigma ** 2));
    this.noisy.setAttribute("aria-label", `Noisy image; the window around row ${mark[0] + 1}, column ${mark[1] + 1} is marked. Arrow keys move it.`);
    const key = [state.picture, state.sigma, state.side, state.machine].join();
    if (key !== this.key) {
      this.key = key;
      // the local machine answers for all pixels at once; the equivariant one would take seconds
      this.x_hat = state.machine === "local" ? localMean(common) : null;
    }
    const clean = this.clean.subarray(state.picture * y.length, (state.picture + 1) * y.length);
    this.answerTitle.textContent = this.x_hat ? "estimate of all pixels" : "clean image";
    this.draw(this.answer, this.x_hat ?? Float64Array.from(clean, (v) => v / 255), { row: mark[0], column: mark[1], height: 1, width: 1 });
    this.answer.setAttribute("aria-label", this.x_hat ? "Estimate of every pixel by the local machine" : "The clean image, which the machine does not see");
    const first = found.voters.slice(0, SHOWN), d = height * width, percent = (w) => `${(100 * w).toFixed(w < 0.1 ? 1 : 0)} %`;
    this.list.replaceChildren(...first.map((voter) => {
      const canvas = h("canvas", { role: "img", "aria-label": `training image ${voter.image + 1} around row ${voter.row + 1}, column ${voter.column + 1}, value ${voter.value.toFixed(2)}` });
      this.draw(canvas, Float64Array.from(images.subarray(voter.image * d, (voter.image + 1) * d), (v) => v / 255), this.window(voter.row, voter.column));
      return h("li", {}, canvas, percent(voter.weight));
    }));
    const share = percent(first.reduce((sum, v) => sum + v.weight, 0)), truth = clean[mark[0] * width + mark[1]] / 255;
    this.status.textContent = `Row ${mark[0] + 1}, column ${mark[1] + 1}: estimate ${found.estimate.toFixed(3)}, clean value ${truth.toFixed(3)}. ` +
      `${found.count} patches vote, with the weight of ${found.effective.toFixed(1)} equal voters; the ${first.length} strongest hold ${share}.`;
  }

  // The visible part of the window around a pixel.
  window(row, column) {
    const reach = (this.state.side - 1) / 2, [top, left] = [Math.max(0, row - reach), Math.max(0, column - reach)];
    return { row: top, column: left, height: Math.min(this.height - 1, row + reach) - top + 1, width: Math.min(this.width - 1, column + reach) - left + 1 };
  }

  // Noise around 1/2 is shrunk to the range; values outside [0, 1] are drawn black or white.
  draw(canvas, values, box, shrink = 1) {
    const scale = 8, small = h("canvas", { width: this.width, height: this.height }), pixels = new ImageData(this.width, this.height);
    values.forEach((v, p) => pixels.data.set([0, 0, 0].fill(255 * (0.5 + shrink * (v - 0.5))).concat(255), 4 * p));
    small.getContext("2d").putImageData(pixels, 0, 0);
    Object.assign(canvas, { width: scale * this.width, height: scale * this.height });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: MARK, lineWidth: 5 });
    context.strokeRect(scale * box.column, scale * box.row, scale * box.width, scale * box.height);
  }
}

// The page's element ----------------------------------------------------------------------------------------------------

if (typeof HTMLElement !== "undefined" && typeof customElements !== "undefined" && !customElements.get("patch-voters")) {
  customElements.define("patch-voters", class extends HTMLElement {
    connectedCallback() {
      if (this.panel) return;
      const spec = JSON.parse(this.querySelector("script").textContent);
      this.panel = new Voters(this, spec, this.querySelector("figcaption")?.textContent ?? "");
    }
  });
}

// Jupyter and Colab
export default {
  render({ model, el }) {
    const root = h("div", {});
    el.append(root);
    new Voters(root, model.get("spec"), model.get("caption"));
  },
};
