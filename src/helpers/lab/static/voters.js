// Who votes for a pixel? The reader clicks a pixel of a noisy image and sees the training patches
// that decide its estimate, with their weights. All is computed here, from the images in the spec.

import { bytes, clamp, COLOURS, h, paint, range } from "./dom.js";
import { Panel } from "./panel.js";
import { localMean, vote } from "./vote.js";

const SHOWN = 8, SCALE = 8; // voters in the list; pixels of the canvas for one of an image
const MACHINES = { local: "local (LS)", equivariant: "equivariant (ELS)" };
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const percent = (weight) => `${(100 * weight).toFixed(weight < 0.1 ? 1 : 0)} %`;
const place = ({ row, column }) => `row ${row + 1}, column ${column + 1}`;

export class Voters extends Panel {
  constructor(root, spec, caption) {
    super(root, spec, caption);
    const { height, width } = spec, noise = new Float32Array(bytes(spec.noise).buffer);
    Object.assign(this, { height, width, d: height * width, noise });
    this.images = bytes(spec.images);
    this.clean = bytes(spec.clean);
    this.build();
    this.change({});
  }

  build() {
    const { height, width } = this, { sides, sigmas } = this.spec;
    const pictures = range(this.clean.length / this.d);
    this.noisy = h("canvas", { class: "voters-noisy", role: "img", tabindex: 0 });
    this.noisy.onclick = ({ offsetX: x, offsetY: y, target }) => this.move(
      Math.floor((y / target.clientHeight) * height), Math.floor((x / target.clientWidth) * width));
    this.noisy.onkeydown = (event) => {
      if (!(event.key in MOVES)) return;
      event.preventDefault();
      const [down, right] = MOVES[event.key];
      this.move(this.state.row + down, this.state.column + right);
    };
    this.answer = h("canvas", { role: "img" });
    this.title = h("div");
    this.list = h("ol", { class: "voters-list", "aria-label": "the strongest voters" });
    this.status = h("p", { role: "status" });
    this.fill("voters",
      h("div", { class: "lab-controls" },
        this.select("machine", "machine", Object.keys(MACHINES), (name) => MACHINES[name]),
        this.slider("window side", "side", sides, (s) => (s > height ? "whole image" : String(s))),
        this.slider("noise σ", "sigma", sigmas),
        this.select("picture", "picture", pictures, (i) => `test image ${i + 1}`),
        this.number("row", "row", height), this.number("column", "column", width)),
      h("div", { class: "voters-stage" },
        h("div", {}, h("div", {}, "noisy: click a pixel"), this.noisy),
        h("div", {}, this.title, this.answer),
        h("div", {}, h("div", {}, "strongest voters"), this.list)),
      this.status);
  }

  move(row, column) {
    const { height, width } = this;
    this.change({ row: clamp(row, 0, height - 1), column: clamp(column, 0, width - 1) });
  }

  change(part) {
    const { machine, side } = { ...this.state, ...part };
    // patches of the equivariant machine lie inside an image
    const fits = this.spec.sides.filter((s) => s <= Math.min(this.height, this.width));
    const wide = machine === "equivariant" && !fits.includes(side);
    super.change(wide ? { ...part, side: fits.at(-1) } : part);
  }

  update() {
    const { state, images, height, width } = this, { picture, sigma, side, machine } = state;
    const { row, column } = state, clean = this.image(this.clean, picture);
    const y = clean.map((v, p) => v + sigma * this.noise[p]);
    const asked = { images, y, height, width, ...state }, found = vote(asked);
    const key = [picture, sigma, side, machine].join();
    if (key !== this.key) {
      // the local machine answers for all pixels at once; the equivariant one would take seconds
      Object.assign(this, { key, x_hat: machine === "local" ? localMean(asked) : null });
    }
    const [title, label] = this.x_hat
      ? ["estimate of all pixels", "Estimate of every pixel by the local machine"]
      : ["clean image", "The clean image, which the machine does not see"];
    const noisy = `Noisy image; the window around ${place(state)} is marked. Arrow keys move it.`;
    this.title.textContent = title;
    this.draw(this.noisy, noisy, y, this.window(state), sigma);
    this.draw(this.answer, label, this.x_hat ?? clean, { ...state, height: 1, width: 1 });
    const first = found.voters.slice(0, SHOWN), share = first.reduce((sum, v) => sum + v.weight, 0);
    this.list.replaceChildren(...first.map((voter) => this.item(voter)));
    const estimate = found.estimate.toFixed(3), value = clean[row * width + column].toFixed(3);
    this.status.textContent = `Row ${row + 1}, column ${column + 1}: estimate ${estimate}, clean ` +
      `value ${value}. ${found.count} patches vote, with the weight of ` +
      `${found.effective.toFixed(1)} equal voters; the ${first.length} strongest hold ` +
      `${percent(share)}.`;
  }

  item(voter) {
    const { image, value, weight } = voter, canvas = h("canvas", { role: "img" });
    const label = `training image ${image + 1} around ${place(voter)}, value ${value.toFixed(2)}`;
    this.draw(canvas, label, this.image(this.images, image), this.window(voter));
    return h("li", {}, canvas, percent(weight));
  }

  image(all, i) {
    return Float64Array.from(all.subarray(i * this.d, (i + 1) * this.d), (v) => v / 255);
  }

  // The visible part of the window around a pixel.
  window({ row, column }) {
    const reach = (this.state.side - 1) / 2, top = Math.max(0, row - reach);
    const left = Math.max(0, column - reach), bottom = Math.min(this.height - 1, row + reach);
    const right = Math.min(this.width - 1, column + reach);
    return { row: top, column: left, height: bottom - top + 1, width: right - left + 1 };
  }

  draw(canvas, label, image, { row, column, height, width }, sigma = 0) {
    const small = paint(h("canvas"), image, [this.height, this.width], sigma);
    Object.assign(canvas, { width: SCALE * this.width, height: SCALE * this.height });
    canvas.setAttribute("aria-label", label);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: COLOURS.particle, lineWidth: 5 });
    context.strokeRect(...[column, row, width, height].map((v) => SCALE * v));
  }
}
