// A lab of the plane: densities, particles and their paths. Noisy points are drawn at
// y / sqrt(1 + sigma^2), so that every noise level fits the window.

import { Denoise, fixed } from "./denoise.js";
import { COLOURS, h, HUES, putPixels, directions } from "./dom.js";
import { Sketch } from "./sketch.js";

// A density as one colour whose opacity is the density: it suits a light page and a dark one.
export function heat(values, colour, n) {
  const rgb = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const pixels = new ImageData(n, n);
  values.forEach((v, i) => pixels.data.set([...rgb, v], 4 * i));
  return putPixels(h("canvas"), pixels);
}

const pair = (point) => `(${[...point].map((v) => fixed(v, 2)).join(", ")})`;

export class Plane extends Denoise {
  get noun() { return "Particle"; }
  get distance() { return "distance to target"; }
  get ends() { return ["perfect", "cloud"]; }

  build() {
    super.build();
    this.sketch = new Sketch(this);
    this.stage.querySelector(".lab-target .lab-choice").append(this.sketch.button);
  }

  draw() {
    if (this.sketch.open) this.sketch.draw();
    else super.draw();
  }

  // While the reader guesses, nothing gives the answer away.
  show() {
    super.show();
    if (!this.sketch?.open) return;
    this.timeline.hidden = true;
    for (const side of Object.keys(this.sketch.points)) this.tell(side);
  }

  // An answer that was on its way waits too.
  arrive(found) {
    super.arrive(found);
    if (!this.sketch.open) return;
    this.time.pause();
    this.sketch.ask();
  }

  // Another question, once this one is answered, has no guess.
  update() {
    if (!this.sketch.open) this.sketch.drop();
    super.update();
  }

  reset() {
    this.sketch.drop();
    super.reset();
  }

  go(search) {
    this.sketch.drop();
    super.go(search);
  }

  tell(side, numbers) {
    super.tell(side, this.sketch?.open ? null : numbers);
    const { frames } = this.results?.[side] ?? {};
    if (!numbers || !frames || this.sketch.open) return;
    const rows = this.sketch.row(side, frames.slice(-2 * this.shown.particles));
    this.sides[side].numbers.append(...rows.flatMap((row) => this.row(row)));
  }

  pick(side, event) { if (!this.sketch.open) super.pick(side, event); }

  // The density is the law of the flow; the particles are what the sampler makes of it.
  numbers(numbers) {
    const total = numbers["total variation"], name = "total variation of the exact flow";
    return [...super.numbers(numbers), [name, fixed(total, 2), total]];
  }

  marks() {
    const wheel = `conic-gradient(${HUES.join(", ")})`;
    return [
      [COLOURS.target, "target"],
      [COLOURS.generated, "exact density of the flow, without the sampler's errors"],
      [wheel, "a particle of the sampler, in the colour of the direction it came from"],
      ["currentColor", "training point"],
      ["none", "bar: a tick where a perfect denoiser stands, full for a round cloud"],
    ];
  }

  aboutTarget() {
    const { count } = this.shown;
    return count === "all" ? "density" : `density and ${count} training points`;
  }

  hint() {
    const near = ", and in a large ring the training point nearest to its end";
    return `Click a particle: its path${this.data.training ? near : ""}.`;
  }

  fate(end, near) {
    const what = near && `the training point ${pair(this.trainingPoint(near.index))}`;
    return `ends at ${pair(end)}${near ? ` ${this.away(near, what)}` : ""}`;
  }

  // Where a point of the plane lies in a window of this width.
  inWindow([x, y], width) {
    const { extent } = this.spec;
    return [width * (0.5 + x / (2 * extent)), width * (0.5 - y / (2 * extent))];
  }

  // A particle at a fractional frame, in the window: NaN where it diverged.
  place(side, i, frame, width) {
    const { frames } = this.results[side], { levels, steps } = this.time, n = this.shown.particles;
    const a = Math.floor(frame), b = Math.min(a + 1, steps), part = frame - a;
    const u = (1 - part) / Math.sqrt(1 + levels[a] ** 2), v = part / Math.sqrt(1 + levels[b] ** 2);
    const from = 2 * (a * n + i), to = 2 * (b * n + i);
    const at = (j) => u * frames[from + j] + v * frames[to + j];
    return this.inWindow([at(0), at(1)], width);
  }

  at(side, { offsetX, offsetY }, width) {
    let best = Infinity, chosen = null;
    for (let i = 0; i < this.shown.particles; i++) {
      const [x, y] = this.place(side, i, this.time.frame, width);
      const distance = (x - offsetX) ** 2 + (y - offsetY) ** 2;
      if (distance < best) [best, chosen] = [distance, i];
    }
    return chosen;
  }

  ground(side, holder, density, colour, label) {
    const [context, width] = this.context(this.sides[side].canvas, 1, label);
    if (density) holder.bitmap ??= heat(density, colour, this.spec.cells);
    if (density) context.drawImage(holder.bitmap, 0, 0, width, width);
    return [context, width];
  }

  drawTarget() {
    const { data } = this, { target, training = [] } = data;
    const label = `Density of the target ${this.shown.target}`;
    const [context, width] = this.ground("target", data, target, COLOURS.target, label);
    context.fillStyle = getComputedStyle(this.root).color;
    for (let i = 0; i < training.length; i += 2) {
      const [x, y] = this.inWindow(training.subarray(i, i + 2), width);
      context.fillRect(x - 1, y - 1, 2, 2);
    }
  }

  drawSide(side) {
    const result = this.results[side], { generated } = result;
    const label = `Particles and exact generated density of ${this.title(side)}`;
    const [context, width] = this.ground(side, result, generated, COLOURS.generated, label);
    const inside = (v) => v >= 0 && v <= width;
    result.turns ??= directions(result.frames, Number(this.shown.particles));
    const size = width < 300 ? 1.8 : 2.4;
    result.turns.forEach((members, hue) => {
      context.fillStyle = HUES[hue];
      for (const i of members) {
        const [x, y] = this.place(side, i, this.time.frame, width);
        if (inside(x) && inside(y)) context.fillRect(x - size / 2, y - size / 2, size, size);
      }
    });
    this.sketch.over(context, side, width);
    if (this.chosen !== null) this.drawPath(context, side, width);
  }

  drawPath(context, side, width) {
    const place = (frame) => this.place(side, this.chosen, frame, width);
    const ring = (point, radius) => {
      context.beginPath();
      context.arc(...point, radius, 0, 7);
      context.stroke();
    };
    Object.assign(context, { strokeStyle: getComputedStyle(this.root).color, lineWidth: 1.5 });
    context.beginPath();
    for (let k = 0; k <= this.time.steps; k++) context.lineTo(...place(k));
    context.stroke();
    ring(place(this.time.frame), 4);
    const near = this.near(side, this.chosen);
    if (near) ring(this.inWindow(this.trainingPoint(near.index), width), 7);
  }
}
