// A lab of images: a row of samples, and under it the training images nearest to where they end.

import { Denoise } from "./denoise.js";
import { COLOURS, h, paint } from "./dom.js";

const COLUMNS = 4, PAIR = 2.2; // a fifth of an image between the pairs

export class Images extends Denoise {
  get noun() { return "Image"; }
  get distance() { return "distance to nearest training image"; }
  get ends() { return ["new image", "noise"]; }

  aboutTarget() { return "first 16 training images"; }

  marks() {
    return [["none", "in each pair above what is generated, under it the nearest training image"],
      ["none", "bar: 0 for a copy, a tick where a new image stands, full for noise"]];
  }

  hint() { return "Click an image: how far is it from the training image under it?"; }

  fate(end, near) {
    if (!near) return "no training image to compare with";
    return `is ${this.away(near, `training image ${near.index + 1}`)}`;
  }

  // Height over width of an image, and of a row.
  ratios(side) {
    const [height, width] = this.spec.event.slice(-2), tall = height / width;
    return [tall, side !== "target" && this.state.count !== "all" ? PAIR * tall : tall];
  }

  at(side, { offsetX, offsetY }, width) {
    const size = width / COLUMNS, [, row] = this.ratios(side);
    const i = COLUMNS * Math.floor(offsetY / (row * size)) + Math.floor(offsetX / size);
    return Math.min(this.shown.particles - 1, i);
  }

  // Room for n images, and where the i-th lies: x, y, width, height.
  room(side, n, label) {
    const [tall, row] = this.ratios(side), lines = Math.ceil(Math.max(n, 1) / COLUMNS);
    const [context, width] = this.context(this.sides[side].canvas, (lines * row) / COLUMNS, label);
    const size = width / COLUMNS, top = (i) => Math.floor(i / COLUMNS) * row * size;
    context.imageSmoothingEnabled = false;
    return [context, (i) => [(i % COLUMNS) * size, top(i), size, tall * size]];
  }

  picture(image, sigma) { return paint(h("canvas"), image, this.spec.event.slice(-2), sigma); }

  drawTarget() {
    const { training = [] } = this.data, n = Math.min(16, training.length / this.d);
    const [context, place] = this.room("target", n, "Training images");
    for (let i = 0; i < n; i++) context.drawImage(this.picture(this.trainingPoint(i)), ...place(i));
  }

  // Samples alone, at a level.
  drawFrame(side, frame, sigma) {
    const n = frame.length / this.d;
    const [context, place] = this.room(side, n, "Samples on their way");
    for (let i = 0; i < n; i++) {
      const image = this.picture(frame.subarray(i * this.d, (i + 1) * this.d), sigma);
      context.drawImage(image, ...place(i));
    }
  }

  drawSide(side) {
    const n = Number(this.shown.particles), at = this.time.step(), { d, results } = this;
    const label = `Samples of ${this.title(side)}, each above the training image nearest to it`;
    const [context, place] = this.room(side, n, label), sigma = this.time.levels[at];
    for (let i = 0; i < n; i++) {
      const [x, y, width, height] = place(i), from = (at * n + i) * d, near = this.near(side, i);
      const image = results[side].frames.subarray(from, from + d);
      context.drawImage(this.picture(image, sigma), x, y, width, height);
      const under = near && this.picture(this.trainingPoint(near.index));
      if (under) context.drawImage(under, x, y + height, width, height);
      if (i !== this.chosen) continue;
      Object.assign(context, { strokeStyle: COLOURS.particle, lineWidth: 3 });
      context.strokeRect(x + 1, y + 1, width - 2, (this.data.training ? 2 : 1) * height - 2);
    }
  }
}
