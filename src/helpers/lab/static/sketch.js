// A guess that the reader draws before the answer is shown, and that stays over it until another
// question is asked.

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
    this.set(false);
  }

  set(open) {
    this.open = open;
    this.button.textContent = open ? "▶ Show the answer" : "✎ Predict first";
    for (const side of Object.keys(this.points)) {
      this.lab.sides[side].canvas.style.touchAction = open ? "none" : "";
    }
  }

  // Neither a guess nor a question.
  drop() {
    this.points = { left: [], right: [] };
    if (this.open) this.set(false);
  }

  ask() {
    this.lab.say("Draw on both panels where the particles will end. Then show the answer.");
  }

  turn() {
    const { lab } = this;
    if (this.open) {
      this.set(false);
      lab.run();
      return;
    }
    this.drop();
    this.set(true);
    clearTimeout(lab.soon);
    lab.time.pause();
    lab.over.hidden = true;
    for (const still of lab.stills.slice(1)) still.remove();
    lab.show();
    lab.choose(null);
    this.ask();
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

  // The sides as they are while the reader draws.
  draw() {
    for (const side of Object.keys(this.points)) {
      const { canvas } = this.lab.sides[side];
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

  // How far from it the answer is, as far as the window shows it: a row of numbers, or none.
  row(side, end) {
    const guess = Float64Array.from(this.points[side].flat()), { extent } = this.lab.spec;
    const seen = [];
    for (let i = 0; i < end.length; i += 2) {
      const point = [end[i], end[i + 1]];
      if (point.every((v) => Math.abs(v) <= extent)) seen.push(...point);
    }
    if (!guess.length || !seen.length) return [];
    const apart = slicedW2(Float64Array.from(seen), guess);
    return [["your guess to what is seen", apart.toFixed(3), apart]];
  }
}
