// A lab of images: a row of samples, and under it the training images nearest to where they end.

import { Denoise } from "./denoise.js";
import { COLOURS, h, paint } from "./dom.js";

const COLUMNS = 4, ROW = 2.2; // a fifth of an image between the pairs

export class Images extends Denoise {
  noun = "Image";
  distance = "distance to nearest training image";

  aboutTarget() {
    return "first 16 training images";
  }

  hint() {
    return "Click an image: how far is it from the training image under it?";
  }

  fate(end, near) {
    if (!near) return "no training image to compare with";
    return `is ${this.away(near, `training image ${near.index + 1}`)}`;
  }

  // Height over width of an image, and of what stands in a row.
  ratios() {
    const [height, width] = this.spec.event.slice(-2);
    return [height / width, (this.data.training ? ROW : 1) * (height / width)];
  }

  at(side, { offsetX, offsetY }, width) {
    const size = width / COLUMNS, [, row] = this.ratios();
    const i = COLUMNS * Math.floor(offsetY / (size * row)) + Math.floor(offsetX / size);
    return Math.min(this.shown.particles - 1, i);
  }

  // Room for n images, and where the i-th lies: x, y, width, height.
  places(side, n, row, label) {
    const [ratio] = this.ratios(), lines = Math.ceil(Math.max(n, 1) / COLUMNS);
    const [context, width] = this.context(side, (lines * row) / COLUMNS, label);
    const size = width / COLUMNS;
    context.imageSmoothingEnabled = false;
    const place = (i) =>
      [(i % COLUMNS) * size, Math.floor(i / COLUMNS) * row * size, size, ratio * size];
    return [context, place];
  }

  picture(image, sigma = 0) {
    return paint(h("canvas"), image, ...this.spec.event.slice(-2), sigma);
  }

  drawTarget() {
    const { training = [] } = this.data, n = Math.min(16, training.length / this.d);
    const [context, place] = this.places("target", n, this.ratios()[0], "Training images");
    for (let i = 0; i < n; i++) context.drawImage(this.picture(this.trainingPoint(i)), ...place(i));
  }

  drawSide(side) {
    const label = `Samples of ${this.title(side)}, each above the training image nearest to it`;
    const n = Number(this.shown.particles), at = Math.floor(this.frame), { d } = this;
    const [context, place] = this.places(side, n, this.ratios()[1], label);
    for (let i = 0; i < n; i++) {
      const [x, y, width, height] = place(i), from = (at * n + i) * d;
      const image = this.results[side].frames.subarray(from, from + d);
      context.drawImage(this.picture(image, this.levels()[at]), x, y, width, height);
      const near = this.near(side, i), tall = this.data.training ? 2 * height : height;
      if (near) {
        const under = this.picture(this.trainingPoint(near.index));
        context.drawImage(under, x, y + height, width, height);
      }
      if (i !== this.chosen) continue;
      Object.assign(context, { strokeStyle: COLOURS.particle, lineWidth: 3 });
      context.strokeRect(x + 1, y + 1, width - 2, tall - 2);
    }
  }
}
