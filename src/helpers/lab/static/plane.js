// A lab of the plane: densities, particles and their paths. Noisy points are drawn at
// y / sqrt(1 + sigma^2), so that every noise level fits the window.

import { Denoise, fixed } from "./denoise.js";
import { COLOURS, putPixels, h } from "./dom.js";

// A density as one colour whose opacity is the density: it suits a light page and a dark one.
function heat(values, colour, n) {
  const pixels = new ImageData(n, n), rgb = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  values.forEach((v, i) => pixels.data.set([...rgb, v], 4 * i));
  return putPixels(h("canvas"), pixels);
}

const pair = (point) => `(${[...point].map((v) => fixed(v, 2)).join(", ")})`;

export class Plane extends Denoise {
  noun = "Particle";
  distance = "distance to target";

  numbers(numbers) {
    const total = numbers["total variation"];
    return [...super.numbers(numbers), ["exact total variation", fixed(total, 2), total]];
  }

  aboutTarget() {
    const { count } = this.shown;
    return count === "all" ? "density" : `density and ${count} training points`;
  }

  hint() {
    const near = this.data.training ? ", and the training point nearest to its end" : "";
    return `Click a particle: its path${near}.`;
  }

  fate(end, near) {
    const place = `ends at ${pair(end)}`;
    if (!near) return place;
    return `${place} ${this.away(near, `the training point ${pair(this.trainingPoint(near.index))}`)}`;
  }

  window([x, y], width) {
    const { extent } = this.spec;
    return [width * (0.5 + x / (2 * extent)), width * (0.5 - y / (2 * extent))];
  }

  // A particle at a fractional frame, in the window: NaN where it diverged.
  place(side, i, frame, width) {
    const { frames } = this.results[side], levels = this.levels(), n = this.shown.particles;
    const a = Math.floor(frame), b = Math.min(a + 1, this.steps);
    const [from, to] = [a, b].map((k) => {
      const shrink = 1 / Math.sqrt(1 + levels[k] ** 2), at = 2 * (k * n + i);
      return [frames[at] * shrink, frames[at + 1] * shrink];
    });
    return this.window(from.map((u, j) => u + (frame - a) * (to[j] - u)), width);
  }

  at(side, { offsetX, offsetY }, width) {
    let best = Infinity, chosen = null;
    for (let i = 0; i < this.shown.particles; i++) {
      const [x, y] = this.place(side, i, this.frame, width);
      const distance = (x - offsetX) ** 2 + (y - offsetY) ** 2;
      if (distance < best) [best, chosen] = [distance, i];
    }
    return chosen;
  }

  ground(side, holder, values, colour, label) {
    const [context, width] = this.context(side, 1, label);
    if (values) {
      holder.bitmap ??= heat(values, colour, this.spec.cells);
      context.drawImage(holder.bitmap, 0, 0, width, width);
    }
    return [context, width];
  }

  drawTarget() {
    const { target, training = [] } = this.data, label = `Density of the target ${this.shown.target}`;
    const [context, width] = this.ground("target", this.data, target, COLOURS.target, label);
    context.fillStyle = getComputedStyle(this.root).color;
    for (let i = 0; i < training.length; i += 2) {
      const [x, y] = this.window([training[i], training[i + 1]], width);
      context.fillRect(x - 1, y - 1, 2, 2);
    }
  }

  drawSide(side) {
    const label = `Particles and exact generated density of ${this.title(side)}`;
    const result = this.results[side], { generated } = result;
    const [context, width] = this.ground(side, result, generated, COLOURS.generated, label);
    context.fillStyle = COLOURS.particle;
    for (let i = 0; i < this.shown.particles; i++) {
      const [x, y] = this.place(side, i, this.frame, width);
      if (x >= 0 && x <= width && y >= 0 && y <= width) context.fillRect(x - 0.9, y - 0.9, 1.8, 1.8);
    }
    if (this.chosen !== null) this.drawPath(context, side, width);
  }

  drawPath(context, side, width) {
    const place = (frame) => this.place(side, this.chosen, frame, width);
    const ring = ([x, y], radius) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.stroke();
    };
    Object.assign(context, { strokeStyle: getComputedStyle(this.root).color, lineWidth: 1.5 });
    context.beginPath();
    for (let k = 0; k <= this.steps; k++) context.lineTo(...place(k));
    context.stroke();
    ring(place(this.frame), 4);
    const near = this.near(side, this.chosen);
    if (near) ring(this.window(this.trainingPoint(near.index), width), 7);
  }
}
