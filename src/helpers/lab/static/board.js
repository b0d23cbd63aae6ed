// What a lab of training shows: particles, densities, the denoiser's push, curves of the loss.

import { COLOURS, h, HUES } from "./dom.js";
import { fixed } from "./denoise.js";
import { Panel } from "./panel.js";
import { heat } from "./plane.js";

const SHORT = ["copies", "distance to the target"]; // all that is told where there is little room
const LATTICE = 15; // arrows on a side of the window
export const FAR = 127; // own points: their range

export class Board extends Panel {
  // The networks: left and right, or by their names, which then have no menus.
  get names() {
    const { start } = this.spec, keys = Object.keys(start);
    return keys.filter((key) => start[key].kind);
  }

  get named() { return !this.spec.start.left; }

  // Points of the window, as noisy points of the level.
  lattice(sigma) {
    const { extent } = this.spec, scale = Math.sqrt(1 + sigma ** 2), points = [];
    const at = (i) => extent * ((2 * i + 1) / LATTICE - 1);
    for (let i = 0; i < LATTICE ** 2; i++) {
      points.push(scale * at(i % LATTICE), scale * at(Math.floor(i / LATTICE)));
    }
    return points;
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      if (!this.stage.clientWidth) return;
      this.timeline.hidden = !this.time.levels;
      if (this.time.levels) this.time.show();
      for (const side of this.names) {
        this.drawSide(side);
        if (!this.named) this.drawCurve(side);
        this.tell(side);
      }
    });
  }

  drawSide(side) {
    const { spec, data, marks } = this, { extent, cells } = spec, s = this.sides[side];
    const drawing = this.drawable() ? " Press to draw points." : "";
    const label = `What the ${side} ${this.title(side)} generates after ${s.step} steps.${drawing}`;
    const [context, width] = this.context(s.canvas, 1, label);
    const at = (x, y) => [width * (0.5 + x / (2 * extent)), width * (0.5 - y / (2 * extent))];
    const ground = (holder, values, colour) => {
      holder.bitmap ??= heat(values, colour, cells);
      context.drawImage(holder.bitmap, 0, 0, width, width);
    };
    if (marks.target && data?.target) ground(data, data.target, COLOURS.target);
    if (marks.density && s.exact?.generated) ground(s.exact, s.exact.generated, COLOURS.generated);
    const ink = getComputedStyle(this.root).color;
    // of the level that is shown, and not of another one that was
    if (marks.push && s.found?.answers && s.found.sigma === this.sigma()) {
      this.drawPush(context, s.found, at, width, ink);
    }
    if (marks.particles && s.found) this.drawParticles(context, s.found, at);
    this.drawPoints(context, at, ink);
  }

  drawPush(context, { lattice, answers, sigma }, at, width, ink) {
    const scale = Math.sqrt(1 + sigma ** 2);
    const moves = Array.from(answers, (v, i) => (v - lattice[i]) / scale);
    const length = (i) => Math.hypot(moves[i], moves[i + 1]);
    let most = 1e-9;
    for (let i = 0; i < moves.length; i += 2) most = Math.max(most, length(i));
    const reach = (1.8 * this.spec.extent) / LATTICE / most;
    Object.assign(context, { strokeStyle: ink, fillStyle: ink, lineWidth: 1, globalAlpha: 0.7 });
    for (let i = 0; i < moves.length; i += 2) {
      const [x, y] = [lattice[i] / scale, lattice[i + 1] / scale];
      const [u, v] = at(x + reach * moves[i], y + reach * moves[i + 1]);
      context.beginPath();
      context.moveTo(...at(x, y));
      context.lineTo(u, v);
      context.stroke();
      context.fillRect(u - 1.5, v - 1.5, 3, 3);
    }
    context.globalAlpha = 1;
  }

  drawParticles(context, { frames, turns }, at) {
    const { particles: n } = this.spec, { levels, steps, frame } = this.time;
    const a = Math.floor(frame), b = Math.min(a + 1, steps), part = frame - a;
    const u = (1 - part) / Math.sqrt(1 + levels[a] ** 2), v = part / Math.sqrt(1 + levels[b] ** 2);
    turns.forEach((members, hue) => {
      context.fillStyle = HUES[hue];
      for (const i of members) {
        const from = 2 * (a * n + i), to = 2 * (b * n + i);
        const place = (j) => u * frames[from + j] + v * frames[to + j];
        const [x, y] = at(place(0), place(1));
        if (!Number.isNaN(x)) context.fillRect(x - 1.5, y - 1.5, 3, 3);
      }
    });
  }

  drawPoints(context, at, ink) {
    const { state, spec, data } = this, own = this.drawable();
    const points = own ? state.points : (data?.training ?? []);
    const size = points.length > 256 ? 1.5 : 3;
    context.fillStyle = ink;
    for (let i = 0; i < points.length; i += 2) {
      context.beginPath();
      context.arc(...at(points[i], points[i + 1]), size, 0, 7);
      context.fill();
    }
    if (!own || !this.cursor) return;
    const [x, y] = at(...this.cursor.map((v) => (v * spec.extent) / FAR));
    context.strokeStyle = COLOURS.particle;
    context.strokeRect(x - 5, y - 5, 10, 10);
  }

  drawCurve(side) {
    const s = this.sides[side], { losses, floor } = s, until = Number(this.state.steps);
    const label = `Loss of the ${side} network over its steps, and the copier's, dashed`;
    const [context, width] = this.context(s.curve, 0.22, label), height = 0.22 * width;
    const ink = getComputedStyle(this.root).color;
    // a bin has equally many steps of each of the networks
    const { levels } = this.spec, size = levels * Math.ceil(until / 120 / levels);
    const bins = Math.ceil(until / size);
    const means = [];
    for (let k = 0; k < bins; k++) {
      const part = losses.slice(k * size, (k + 1) * size);
      if (!part.length) break;
      means.push(part.reduce((a, b) => a + b, 0) / part.length);
    }
    const shown = [...means, floor].filter((v) => v > 0).map(Math.log);
    if (!shown.length) return;
    const low = Math.min(...shown) - 0.2, high = Math.max(...shown, low + 1) + 0.1;
    const up = (v) => height * (1 - (Math.log(v) - low) / (high - low));
    const place = (k, v) => [(width * (k + 0.5)) / bins, up(v)];
    context.lineWidth = 1.5;
    context.strokeStyle = COLOURS.generated;
    context.beginPath();
    means.forEach((v, k) => context.lineTo(...place(k, v)));
    context.stroke();
    if (floor > 0) {
      Object.assign(context, { strokeStyle: ink, lineWidth: 1 });
      context.setLineDash([4, 4]);
      context.beginPath();
      context.moveTo(...place(-0.5, floor));
      context.lineTo(...place(bins, floor));
      context.stroke();
      context.setLineDash([]);
    }
    Object.assign(context, { fillStyle: ink, font: "11px sans-serif" });
    context.fillText("loss", 3, 11);
  }

  tell(side) {
    const { step, weights, pace, found, exact } = this.sides[side];
    const share = (v) => (Number.isFinite(v) ? `${fixed(100 * v, 0)} %` : "–");
    const { copies, chance, outside } = found?.numbers ?? {};
    const expected = Number.isFinite(chance) ? ` (by chance ${share(chance)})` : "";
    const speed = pace ? `, ${Math.round(pace)} a second` : "";
    const rows = [
      ["step", `${step} of ${this.state.steps}${speed}`, step],
      ["weights", weights ?? "–", weights],
      ["loss less the copier's", fixed(exact?.above), exact?.above],
      ["copies", `${share(copies)}${expected}`, copies],
      ["distance to the target", fixed(exact?.target, 2), exact?.target],
      ["distance to the copier", fixed(exact?.copier, 2), exact?.copier],
      ["outside the picture", found ? `${outside} of ${this.spec.particles}` : "–", outside],
    ];
    const told = this.named ? rows.filter(([name]) => SHORT.includes(name)) : rows;
    this.sides[side].numbers.replaceChildren(...told.flatMap(([name, text, value]) =>
      [h("dt", {}, name), h("dd", { "data-value": value ?? "" }, text)]));
  }
}
