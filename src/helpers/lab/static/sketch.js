// A guess that the reader draws before the answer is shown, and that stays over it.

import { h } from "./dom.js";
import { slicedW2 } from "./measures.js";

const GAP = 6; // pixels between two points of a line that is drawn

export class Sketch {
  points = { left: [], right: [] };
  open = false; // the reader draws; nothing is answered yet

  constructor(lab) {
    this.lab = lab;
    this.button = h("button", { type: "button", onclick: () => this.turn() });
    for (const side of Object.keys(this.points)) this.listen(side);
    this.name();
  }

  name() { this.button.textContent = this.open ? "▶ Show the answer" : "✎ Predict first"; }

  turn() {
    const { lab } = this;
    this.open = !this.open;
    this.name();
    if (!this.open) return lab.run();
    this.points = { left: [], right: [] };
    lab.time.pause();
    lab.over.hidden = true;
    for (const still of lab.stills.slice(1)) still.remove();
    lab.say("Draw on both panels where the particles will end. Then show the answer.");
    lab.draw();
  }

  listen(side) {
    const { canvas } = this.lab.sides[side];
    const add = ({ offsetX, offsetY, buttons }) => {
      if (!this.open || !buttons) return;
      const width = canvas.clientWidth, { extent } = this.lab.spec, all = this.points[side];
      const point = [offsetX, width - offsetY].map((v) => extent * ((2 * v) / width - 1));
      const gap = all.length ? Math.hypot(...point.map((v, k) => v - all.at(-1)[k])) : Infinity;
      if (gap < (2 * extent * GAP) / width) return;
      all.push(point);
      this.lab.draw();
    };
    canvas.addEventListener("pointerdown", add);
    canvas.addEventListener("pointermove", add);
  }

  // The side as it is while the reader draws.
  draw() {
    for (const side of Object.keys(this.points)) {
      const { canvas } = this.lab.sides[side];
      canvas.style.touchAction = "none";
      const [context, width] = this.lab.context(canvas, 1, `Your guess, ${side} panel`);
      this.over(context, side, width);
    }
  }

  over(context, side, width) {
    context.strokeStyle = "#e69f00";
    context.lineWidth = 2;
    for (const point of this.points[side]) {
      const [x, y] = this.lab.inWindow(point, width);
      context.strokeRect(x - 3, y - 3, 6, 6);
    }
  }

  // How far the answer is from it: a row of numbers, or none.
  row(side, end) {
    const guess = Float64Array.from(this.points[side].flat());
    if (!guess.length) return [];
    const apart = slicedW2(Float64Array.from(end).filter((v) => !Number.isNaN(v)), guess);
    return [["distance to your guess", apart.toFixed(3), apart]];
  }
}
