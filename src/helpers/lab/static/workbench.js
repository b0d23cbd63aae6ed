// The workbench beside a kernel: choose data, networks and training, watch what becomes of them,
// and ask. helpers.lab.bench_widget answers, and pushes where it is after every slice.

import { Kernel } from "./answers.js";
import { clamp, COLOURS, h, paint, range, svg } from "./dom.js";
import { CURVES, digits, HIGH, LEFT, LOW, Questions, WIDE } from "./workbench-questions.js";

const PAIR = 2.05, GAP = 0.06; // of a sheet, in images: height of a pair, gaps
const NARROW = 520; // pixels: a sheet below has four columns, others eight
const FIRST = "Each sample stands above the training image nearest to it. " +
  "Click one: its eigenvectors";
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);

// A shape that follows values (n,) from left to right, between low and high.
export function polyline(values, low, high) {
  const x = (i) => LEFT + ((WIDE - LEFT - 4) * i) / Math.max(1, values.length - 1);
  const y = (v) => HIGH - LOW - ((HIGH - LOW - 6) * (v - low)) / Math.max(1e-9, high - low);
  return values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
}

export class Bench extends Questions {
  arrays = {}; // samples and the training images nearest to them, by name
  told = { runs: [] };
  marked = [0, 0]; // a sample of each network
  points = {}; // what was asked of the plane, by network

  constructor(root, kernel) {
    super(root, { start: {} }, "");
    this.kernel = kernel;
    this.status = h("p", { role: "status", class: "lab-status" }, "Asking the kernel …");
    this.fill("bench", this.status);
    this.open();
  }

  async open() {
    const about = await this.ask({ ask: "all" });
    if (!about) return;
    Object.assign(this, { about, draft: structuredClone(about.choices) });
    this.build();
    this.receive(about);
  }

  // Asks, and says what went wrong; null then.
  async ask(question, saying = "") {
    if (saying) this.say(saying);
    try {
      const answer = await this.kernel.ask(question, (step) => step !== true && this.say(step));
      if (saying) this.say("");
      return answer;
    } catch (error) {
      this.say(error.message, true);
      return null;
    }
  }

  say(text, bad = false) {
    this.status.textContent = text || this.progress();
    this.status.toggleAttribute("data-bad", bad);
  }

  // Choices --------------------------------------------------------------------------------------

  build() {
    const { about } = this, kept = about.folder ? `kept in ${about.folder}` : "kept nowhere";
    const [data, first, second, training] = range(4).map(() => h("fieldset"));
    Object.assign(this, { boxes: { data, networks: [first, second], training } });
    this.go = this.button("Train", () => this.train());
    this.go.classList.add("bench-go");
    this.stop = this.button("Pause", () => this.ask({ ask: "pause" }));
    [this.views, this.curves, this.questions] = range(3).map(() => h("div"));
    this.views.className = "bench-views";
    this.answer = h("div", { "aria-live": "polite" });
    this.fill("bench",
      h("div", { class: "bench-stage" },
        h("div", {}, data, first, second, training,
          h("div", { class: "lab-controls" }, this.go, this.stop)),
        h("div", {}, this.status, this.views, this.curves, this.questions, this.answer)),
      h("figcaption", {}, `Trains on ${about.device}, ${kept}.`));
    this.showData();
    [0, 1].forEach((i) => this.showNetwork(i));
    this.showTraining();
  }

  same() { return JSON.stringify(this.draft) === JSON.stringify(this.about.choices); }

  // Other choices are another training.
  label() {
    const { runs, ended } = this.told, begun = runs.some(({ step }) => step) && !ended;
    this.go.textContent = begun && this.same() ? "Go on" : "Train";
  }

  async train() {
    if (!this.same() || this.told.fault) {
      const answer = await this.ask({ ask: "choose", choices: this.draft });
      if (!answer) return;
      this.about.choices = answer.choices;
      Object.assign(this, { arrays: {}, points: {}, marked: [0, 0] });
      this.draft = structuredClone(answer.choices);
      this.answer.replaceChildren();
      this.build();
      this.receive(answer);
    }
    await this.ask({ ask: "train" });
  }

  // What becomes of them -------------------------------------------------------------------------

  receive({ push, arrays, runs, running, ended, fault, planning, ...rest }) {
    for (const [key, value] of Object.entries(rest)) {
      if (/^(sheet|near)\d$/.test(key)) this.arrays[key] = value;
    }
    if (!runs) return;
    const before = this.told.runs.map(({ name }) => name).join();
    this.told = { runs, running, ended, fault, planning };
    this.go.disabled = running;
    this.stop.disabled = !running;
    this.label();
    if (before !== runs.map(({ name }) => name).join()) this.showRuns();
    if (this.questions.childElementCount === 0 && runs.length) this.showQuestions();
    runs.forEach((run, i) => this.showRun(run, i));
    this.drawCurves();
    this.say(fault ?? "", Boolean(fault));
  }

  progress() {
    const { runs, running, ended, planning } = this.told;
    if (planning) return "Reads the images and measures how fast this machine trains …";
    const waits = "A training of these is kept: Train goes on with it.";
    if (!runs.length && this.about?.kept) return waits;
    if (!runs.length) return "Choose, and press Train.";
    if (ended) return `Trained. ${FIRST}.`;
    if (!running) return `Paused. ${FIRST}.`;
    const left = runs.reduce((sum, { remaining }) => sum + (remaining ?? 0), 0);
    return `Trains${left ? `: about ${Math.ceil(left)} s of training left` : ""}. ${FIRST}.`;
  }

  // The kernel is gone, and with it what no folder keeps.
  lost(message) {
    const kept = this.about?.folder ? ` What ${this.about.folder} keeps goes on.` : "";
    this.told.running = false;
    if (this.go) this.go.disabled = this.stop.disabled = true;
    this.say(message + kept, true);
  }

  showRuns() {
    this.rows = this.told.runs.map(({ name }, i) => {
      const canvas = h("canvas", { role: "img", tabindex: 0 }), bar = h("div");
      const numbers = h("p"), title = h("strong", { style: `color: ${CURVES[i]}` }, name);
      canvas.onclick = ({ offsetX, offsetY }) => {
        const { columns } = this.rows[i], side = canvas.clientWidth / columns;
        const [height, width] = this.event(i);
        const tall = side * (height / width), row = Math.floor(offsetY / (tall * PAIR));
        const under = offsetY - row * tall * PAIR > tall;
        this.mark(i, Math.floor(offsetX / side) + columns * row, true, under);
      };
      canvas.onkeydown = (event) => {
        const { columns } = this.rows[i];
        const rows = { ArrowUp: -columns, ArrowDown: columns };
        const moves = { ArrowLeft: -1, ArrowRight: 1, ...rows, Enter: 0 };
        if (!(event.key in moves)) return;
        event.preventDefault();
        this.mark(i, this.marked[i] + moves[event.key], event.key === "Enter");
      };
      const row = h("section", { class: "bench-run" }, title,
        h("div", { class: "bench-bar" }, bar), canvas, numbers);
      return { row, canvas, bar, numbers, columns: 8 };
    });
    this.views.replaceChildren(...this.rows.map(({ row }) => row));
  }

  event(i) {
    const { shapes } = this.kernel;
    return shapes[`sheet${i}`]?.slice(-2) ?? [1, 1];
  }

  // Marks a sample; ask: for eigenvectors there, or at the training image under it.
  mark(i, place, ask, under = false) {
    const count = this.kernel.shapes[`sheet${i}`]?.[0] ?? 0;
    this.marked[i] = clamp(place, 0, Math.max(0, count - 1));
    this.showRun(this.told.runs[i], i);
    if (ask && count) this.eigenvectors(i, under);
  }

  showRun({ name, step, steps, history, loss }, i) {
    const { canvas, bar, numbers } = this.rows[i], last = history.at(-1);
    bar.style.width = `${(100 * step) / steps}%`;
    const parts = [`step ${step} of ${steps}`, loss !== null && `loss ${digits(loss)}`];
    if (last) {
      const [train, test] = last.psnr.map((db) => db.toFixed(1));
      parts.push(`PSNR at σ = 100/255: ${train} dB on training images, ${test} on others`,
        `copies ${percent(last.copies)}`, `quadrants that are copies ${percent(last.quadrants)}`,
        last.lost ? `diverged ${percent(last.lost)}` : "");
    }
    numbers.textContent = parts.filter(Boolean).join("; ");
    canvas.setAttribute("aria-label", `Samples of ${name}, each above the training image nearest ` +
      `to it; ${this.marked[i] + 1} is marked. Arrow keys move, Enter asks for eigenvectors.`);
    this.drawSheet(i);
  }

  drawSheet(i) {
    const { canvas } = this.rows[i];
    const [sheet, near] = [`sheet${i}`, `near${i}`].map((name) => this.arrays[name]);
    if (!sheet?.length) return;
    const [height, width] = this.event(i), [count] = this.kernel.shapes[`sheet${i}`];
    const side = Math.max(2 * width, 64), tall = (side * height) / width;
    const size = sheet.length / count;
    const columns = canvas.clientWidth < NARROW ? 4 : 8, context = canvas.getContext("2d");
    this.rows[i].columns = columns;
    Object.assign(canvas, {
      width: columns * side, height: Math.ceil(count / columns) * PAIR * tall,
    });
    context.imageSmoothingEnabled = false;
    for (let k = 0; k < count; k++) {
      const x = (k % columns) * side, y = Math.floor(k / columns) * PAIR * tall;
      [sheet, near].forEach((all, lower) => {
        const image = all.subarray(k * size, (k + 1) * size), inner = side * (1 - GAP);
        const picture = paint(h("canvas"), image, [height, width]);
        context.drawImage(picture, x, y + lower * tall * (1 - GAP / 2), inner, tall * (1 - GAP));
      });
      if (k !== this.marked[i]) continue;
      Object.assign(context, { strokeStyle: COLOURS.particle, lineWidth: 2 });
      context.strokeRect(x + 1, y + 1, side * (1 - GAP) - 2, (2 - 1.5 * GAP) * tall - 2);
    }
  }

  // PSNR over the looks: full lines on training images, dashed on others.
  drawCurves() {
    const curves = this.told.runs.flatMap(({ history }, i) => [0, 1].map((part) => {
      const stroke = CURVES[i], dash = part ? { "stroke-dasharray": "4 3" } : {};
      return [history.map(({ psnr }) => psnr[part]), { stroke, ...dash }];
    }));
    const all = curves.flatMap(([values]) => values), low = Math.min(...all);
    if (all.length < 4) return this.curves.replaceChildren();
    const high = Math.max(...all), about = { fill: "none", "stroke-width": 2 };
    const label = `PSNR over ${this.told.runs[0].history.length} looks, from ${low.toFixed(1)} ` +
      `to ${high.toFixed(1)} dB; dashed on images that are not trained on`;
    const chart = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label },
      ...[[high, 12], [low, HIGH - LOW]].map(([v, y]) => svg("text", { x: 0, y }, v.toFixed(1))),
      svg("text", { x: LEFT, y: HIGH - 4 }, "PSNR in dB over training: full on training images, " +
        "dashed on others"),
      ...curves.map(([values, style]) =>
        svg("polyline", { points: polyline(values, low, high), ...about, ...style })));
    return this.curves.replaceChildren(chart);
  }
}

// Answers as every lab's; besides, what the kernel says unasked.
class BenchKernel extends Kernel {
  shapes = {};

  fail(message) {
    super.fail(message);
    this.panel?.lost(message);
  }

  constructor(model) {
    super(model);
    model.on("msg:custom", ({ arrays = [], push, ...told }, buffers) => {
      for (const [name, , shape] of arrays) this.shapes[name] = shape;
      if (!push) return;
      arrays.forEach(([name], i) => {
        const { buffer, byteOffset, byteLength } = buffers[i];
        told[name] = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
      });
      this.panel?.receive(told);
    });
  }
}

export default {
  render({ model, el }) {
    const root = document.createElement("div"), kernel = new BenchKernel(model);
    el.append(root);
    kernel.panel = new Bench(root, kernel);
  },
};
