// The workbench beside a kernel: choose data, networks and training, watch what becomes of them,
// and ask. helpers.lab.bench_widget answers, and pushes where it is after every slice.

import { Kernel } from "./answers.js";
import { clamp, COLOURS, h, paint, range, svg } from "./dom.js";
import { redAndBlue } from "./eigen.js";
import { Panel } from "./panel.js";

const PAIR = 2.05, GAP = 0.06; // of a sheet, in images: height of a pair, gaps
const NARROW = 520; // pixels: a sheet below has four columns, others eight
const CURVES = [COLOURS.particle, COLOURS.generated];
const WIDE = 420, HIGH = 130, LEFT = 36, LOW = 20; // of a chart
const FIRST = "Each sample stands above the training image nearest to it. " +
  "Click one: its eigenvectors";
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);
const digits = (value) => (typeof value === "number" ? Number(value.toPrecision(3)) : value);

// What a reader typed for an option: a number, a list or a word.
export function typed(text) {
  if (/^\s*(none|null)?\s*$/i.test(text)) return null;
  try { return JSON.parse(text); } catch { return text.trim(); }
}

// A shape that follows values (n,) from left to right, between low and high.
export function polyline(values, low, high) {
  const x = (i) => LEFT + ((WIDE - LEFT - 4) * i) / Math.max(1, values.length - 1);
  const y = (v) => HIGH - LOW - ((HIGH - LOW - 6) * (v - low)) / Math.max(1e-9, high - low);
  return values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
}

export class Bench extends Panel {
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

  // A labelled control that writes draft values.
  field(label, value, choices, write, wide = false) {
    const words = { true: "yes", false: "no", null: "as fits" };
    const shown = choices?.map((v) => words[v] ?? String(v));
    let control;
    if (choices) {
      control = this.menu(shown, (i) => write(choices[i]));
      control.selectedIndex = choices.indexOf(value);
    } else {
      const number = typeof value === "number";
      const text = value && typeof value === "object" ? JSON.stringify(value) : value ?? "";
      const about = { step: "any", value: text, placeholder: "as fits" };
      control = h("input", { type: number ? "number" : "text", ...about });
      control.onchange = () => write(typed(control.value));
    }
    return h("label", wide ? { class: "bench-wide" } : {}, label.replaceAll("_", " "), control);
  }

  showData() {
    const { data } = this.draft, { path = "", alpha = 2 } = data;
    const write = (key) => (value) => { data[key] = value; };
    const name = (value) => {
      this.draft.data = { name: value, n: data.n, size: data.size, colour: "gray" };
      if (value === "folder") this.draft.data.path = path;
      if (value === "c-alpha") this.draft.data.alpha = alpha;
      this.showData();
    };
    const colours = ["celeba", "folder"].includes(data.name) ? ["gray", "rgb"] : ["gray"];
    this.boxes.data.replaceChildren(h("legend", {}, "Images"), h("div", { class: "bench-pairs" },
      this.field("from", data.name, this.about.data, name),
      this.field("colour", data.colour, colours, write("colour")),
      this.field("how many", data.n, null, write("n")),
      this.field("pixels a side", data.size, null, write("size")),
      "path" in data ? this.field("folder", path, null, write("path"), true) : "",
      "alpha" in data ? this.field("alpha", alpha, null, write("alpha")) : ""));
  }

  showNetwork(i) {
    const { networks } = this.draft, { architectures } = this.about;
    const [name, options] = networks[i] ?? ["none", {}];
    const names = [...(i ? ["none"] : []), ...Object.keys(architectures)];
    const choose = (value) => {
      if (value === "none") networks.length = 1;
      else networks[i] = [value, {}];
      this.showNetwork(i);
    };
    const write = (key, first) => (value) => {
      if (JSON.stringify(value) === JSON.stringify(first)) delete options[key];
      else options[key] = value;
    };
    const fields = (architectures[name] ?? []).map(([key, first, choices]) =>
      this.field(key, options[key] ?? first, choices, write(key, first)));
    this.boxes.networks[i].replaceChildren(
      h("legend", {}, i ? "In turns with" : "Network"),
      h("label", {}, "class", this.networkMenu(names, name, choose)),
      fields.length ? h("details", i || Object.keys(options).length ? { open: "" } : {},
        h("summary", {}, "options"), h("div", { class: "bench-pairs" }, ...fields)) : "");
  }

  networkMenu(names, name, choose) {
    const menu = this.menu(names, (i) => choose(names[i]));
    menu.selectedIndex = names.indexOf(name);
    return menu;
  }

  showTraining() {
    const { draft } = this, { changes } = draft;
    const change = (key) => (value) => {
      if (value === null) delete changes[key];
      else changes[key] = value;
    };
    const write = (key) => (value) => { draft[key] = value; };
    this.boxes.training.replaceChildren(h("legend", {}, "Training"),
      h("div", { class: "bench-pairs" },
        this.field("minutes", draft.minutes, null, write("minutes")),
        this.field("or steps", draft.steps, null, write("steps")),
        this.field("rate", changes.rate ?? null, null, change("rate")),
        this.field("batch", changes.batch ?? null, null, change("batch")),
        this.field("loss", changes.loss ?? null, [null, "edm", "level", "sum", "log", "snr"],
          change("loss")),
        this.field("seed", draft.seed, null, write("seed"))));
  }

  async train() {
    const same = JSON.stringify(this.draft) === JSON.stringify(this.about.choices);
    if (!same || this.told.fault) {
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
    this.go.disabled = running || ended;
    this.stop.disabled = !running;
    this.go.textContent = runs.some(({ step }) => step) ? "Go on" : "Train";
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

  // What can be asked ----------------------------------------------------------------------------

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
