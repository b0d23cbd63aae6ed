// What can be asked of the networks of a workbench, and how the answers are shown.

import { COLOURS, h, paint, svg } from "./dom.js";
import { redAndBlue } from "./eigen.js";
import { Choices } from "./workbench-choices.js";

export const CURVES = [COLOURS.particle, COLOURS.generated]; // of each network
export const WIDE = 420, HIGH = 130, LEFT = 36, LOW = 20; // of a chart
export const digits = (v) => (typeof v === "number" ? Number(v.toPrecision(3)) : v);

export class Questions extends Choices {
  showQuestions() {
    const asked = { sampler: "reverse SDE", steps: 18, seed: 0, sigma: 0.2, name: "my-network" };
    const write = (key) => (value) => { asked[key] = value; };
    const which = () => this.told.runs.map((_, i) => i);
    const sample = () => which().reduce((before, i) => before.then(() => this.sample(i, asked)),
      Promise.resolve());
    this.asked = asked;
    this.questions.replaceChildren(h("div", { class: "lab-controls" },
      this.field("sampler", asked.sampler, this.about.samplers, write("sampler")),
      this.field("its steps", asked.steps, null, write("steps")),
      this.field("seed of the noise", asked.seed, null, write("seed")),
      this.button("Sample", sample),
      this.field("σ of eigenvectors", asked.sigma, null, write("sigma"))),
    h("div", { class: "lab-controls" },
      this.button("Which theory foretells it?", () => this.each("agreement")),
      this.button("Place in the plane", () => this.each("point")),
      this.button("Row for the ledger", () => this.each("row")),
      this.field("name", asked.name, null, write("name")),
      this.button("Save weights", () => this.each("save")),
      this.button("Write as a lab", () => this.each("lab"))));
  }

  async sample(which, { sampler, steps, seed }) {
    const answer = await this.ask({ ask: "sample", which, sampler, steps, seed }, "Samples …");
    if (!answer) return;
    this.receive(answer);
    this.drawSheet(which);
  }

  // One question about each network, and the answers as tables.
  async each(ask) {
    const tables = [], { runs } = this.told, count = ask === "lab" ? 1 : runs.length;
    for (let which = 0; which < count; which++) {
      const name = this.asked.name + (which ? "-b" : "");
      const saying = "Asks the kernel; this may take a minute …";
      const answer = await this.ask({ ask, which, name }, saying);
      if (!answer) return;
      if (ask === "point") this.points[runs[which].name] = answer.found;
      const rows = Object.entries(answer.found).flatMap(([key, value]) =>
        [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, String(digits(value)))]);
      if (ask !== "lab") tables.push(h("strong", {}, runs[which].name));
      tables.push(h("dl", { class: "lab-numbers bench-found" }, ...rows));
    }
    if (ask === "point") {
      const known = await this.ask({ ask: "landmarks" }, "Places the copier and the linear one …");
      if (!known) return;
      tables.push(this.plane(known.found));
    }
    this.answer.replaceChildren(...tables);
  }

  // Copying against realism, as chapter 13 draws it.
  plane(known) {
    const placed = [...Object.entries(this.points), ...Object.entries(known)];
    const all = placed.filter(([, { kid }]) => kid !== undefined);
    const colour = (name, i) => (name in known ? "currentColor" : CURVES[i % 2]);
    if (!all.length) return h("p", {}, "For these images there is no judge of realism.");
    const high = Math.max(0.5, ...all.map(([, { kid }]) => kid)), right = WIDE - LEFT - 90;
    const x = (v) => LEFT + (right * v) / 1.2;
    const y = (v) => HIGH - LOW - (v / high) * (HIGH - LOW - 14);
    return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
      "aria-label": "Copying and realism; the numbers stand above" },
    svg("text", { x: LEFT, y: HIGH - 4 }, "copies ← closeness → creates"),
    svg("text", { x: 0, y: 10 }, "KID"),
    svg("line", { x1: LEFT, x2: x(1.2), y1: y(0), y2: y(0), stroke: "currentColor" }),
    svg("line", { x1: LEFT, x2: LEFT, y1: y(0), y2: 4, stroke: "currentColor" }),
    ...all.flatMap(([name, { closeness, kid }], i) => [
      svg("circle", { cx: x(closeness), cy: y(kid), r: 4, fill: colour(name, i) }),
      svg("text", { x: x(closeness) + 7, y: y(kid) + 4 }, name)]));
  }

  async eigenvectors(which, nearest) {
    const image = this.marked[which], { sigma } = this.asked;
    const asked = { ask: "eigenvectors", which, image, sigma, nearest };
    const place = `${nearest ? "the training image under " : ""}sample ${image + 1}`;
    const answer = await this.ask(asked, "Differentiates …");
    if (!answer) return;
    const { values, vectors } = answer, size = vectors.length / values.length;
    const pictures = values.map((value, k) => {
      const canvas = h("canvas", { role: "img", "aria-label": `Eigenvector ${k + 1}` });
      const colours = redAndBlue(vectors.subarray(k * size, (k + 1) * size));
      return h("div", {}, paint(canvas, colours, this.event(which)), `λ = ${value.toFixed(2)}`);
    });
    this.answer.replaceChildren(
      h("p", {}, `${this.told.runs[which].name}, ${place}, noise of level ${sigma}: ` +
        "leading eigenvectors of the Jacobian, zero is white."),
      h("div", { class: "bench-vectors" }, ...pictures));
  }
}
