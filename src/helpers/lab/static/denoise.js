// Two denoisers side by side, from the same noise: choices, running, one particle. plane.js and
// images.js say how a side is drawn, and what is told of a particle.

import { Page } from "./answers.js";
import { clamp, h } from "./dom.js";
import { linkOfState, stateOfLink } from "./link.js";
import { isCopy, isLost, nearest } from "./measures.js";
import { Panel } from "./panel.js";
import { Time } from "./time.js";

const SIDES = ["left", "right"];

export const fixed = (value, digits = 3) =>
  (Number.isFinite(value) ? value.toFixed(digits) : "–");

// Where a value stands between what a perfect denoiser would have and what noise has.
function bar(value, [low, high], [mark, end]) {
  const place = (v) => `${(100 * clamp(v / high, 0, 1)).toFixed(1)}%`;
  const words = { low: `${mark} ${low.toPrecision(2)}`, high: `${end} ${high.toPrecision(2)}` };
  return h("span", { class: "lab-bar", role: "img", "data-low": words.low, "data-high": words.high,
    style: `--at: ${place(value)}; --low: ${place(low)}`,
    "aria-label": `beside it: ${words.low}, ${words.high}` });
}

export class Denoise extends Panel {
  sides = {};
  made = {};
  chosen = null;
  started = false;
  turn = 0;

  constructor(root, spec, caption, answers) {
    super(root, spec, caption);
    Object.assign(this, { answers, linked: answers instanceof Page });
    this.d = spec.event.reduce((a, b) => a * b, 1);
    this.build();
    if (this.linked) this.readLink();
    this.show();
    this.watch(this.stage);
    if (this.beginsItself(this.query() !== "")) {
      this.whenSeen(this.stage, () => this.started || this.run());
    }
  }

  // Building

  build() {
    const { spec } = this, schedules = Object.keys(spec.schedules);
    this.stills = [...this.root.querySelectorAll(".lab-still svg")]; // shown until the first run
    const panels = ["target", ...SIDES].map((side, i) => this.buildSide(side, this.stills[i]));
    const points = (count) => (count === "all" ? "the whole target" : count);
    const mark = () => this.choose(this.particle.valueAsNumber - 1);
    this.time = new Time(() => this.draw());
    this.particle = h("input", { type: "number", min: 1, onchange: mark });
    this.timeline = h("div", { class: "lab-time" }, this.time.button, this.time.slider,
      this.time.told, h("label", {}, `${this.noun.toLowerCase()} number`, this.particle));
    this.press = this.button("▶ Press to run", () => this.run());
    this.over = h("div", { class: "lab-over" }, this.press);
    this.stage = h("div", { class: "lab-stage" }, ...panels, this.over);
    this.detail = h("p", { class: "lab-detail", "aria-live": "polite" });
    this.status = h("p", { class: "lab-status", role: "status" });
    this.foot = h("div", { class: "lab-controls" },
      this.button("Reset", () => this.reset()),
      this.linked ? this.button("Copy link to this state", () => this.copyLink()) : "");
    this.fill("denoise",
      h("div", { class: "lab-controls" },
        this.select("target", "target", spec.targets, (name) => name.replace("_", " ")),
        this.select("training points", "count", spec.counts, points),
        spec.samplers_apart ? "" : h("label", {}, "sampler", this.samplers("sampler", SIDES)),
        this.select("schedule", "schedule", schedules),
        this.select("steps", "steps", Object.keys(spec.schedules[schedules[0]])),
        this.select("particles", "particles", spec.particles),
        this.number("seed", "seed", 2 ** 32 - 1, 0)),
      this.stage, this.timeline, this.legend(), this.detail, this.status, this.foot);
  }

  // What the marks mean: a colour each, where it has one, and words.
  legend() {
    const mark = ([colour, words]) => h("li", {},
      h("span", { class: "lab-mark", style: `background: ${colour}`, "aria-hidden": true }), words);
    return h("ul", { class: "lab-legend" }, ...this.marks().map(mark));
  }

  buildSide(side, still = "") {
    const about = { role: "img", "aria-label": `${side} panel, not run yet` };
    const canvas = h("canvas", { width: 10, height: 10, ...about });
    const numbers = h("dl", { class: "lab-numbers", "aria-live": "polite" });
    canvas.onclick = (event) => this.pick(side, event);
    this.sides[side] = { canvas, numbers };
    const choice = side === "target" ? [h("strong", {}, "target")] : this.choice(side);
    return h("div", { class: `lab-panel lab-${side}` },
      h("div", { class: "lab-choice" }, ...choice),
      h("div", { class: "lab-view" }, canvas, still), numbers);
  }

  samplers(label, sides) {
    const chosen = (side) => [side, this.state[side].with(2, menu.value)];
    const choose = () => this.change(Object.fromEntries(sides.map(chosen)));
    const menu = this.menu(this.spec.samplers, choose, { "aria-label": label });
    this.shows.push(() => { menu.value = this.state[sides[0]][2]; });
    return menu;
  }

  // Architecture, its knob, and the sampler where each side has its own.
  choice(side) {
    const { families, samplers_apart } = this.spec, names = families.map(({ name }) => name);
    const set = (at) => {
      const { values } = this.family(menu.value), value = values[Math.min(at, values.length - 1)];
      this.change({ [side]: [menu.value, value, this.state[side][2]] });
    };
    const menu = this.menu(names, () => set(1), { "aria-label": `architecture, ${side} panel` });
    const slide = h("input", { type: "range", min: 0, oninput: () => set(slide.valueAsNumber) });
    const text = h("span"), label = h("label", {}, text, slide);
    this.shows.push(() => {
      const [name, value] = this.state[side], { knob, values } = this.family(name);
      menu.value = name;
      label.hidden = values.length < 2;
      text.textContent = `${knob} ${value}`;
      slide.max = values.length - 1;
      slide.value = values.indexOf(value);
      slide.setAttribute("aria-label", `${knob}, ${side} panel`);
      slide.setAttribute("aria-valuetext", value);
    });
    return [menu, label, samplers_apart ? this.samplers(`sampler, ${side} panel`, [side]) : ""];
  }

  family(name) { return this.spec.families.find((f) => f.name === name); }

  // State

  show() {
    super.show();
    this.timeline.hidden = !this.started;
    if (this.started) return;
    const first = this.query() === "";
    for (const still of this.stills) still.toggleAttribute("hidden", !first);
    for (const side of SIDES) this.tell(side, first && this.spec.numbers?.[side]);
  }

  update() {
    this.writeLink();
    clearTimeout(this.soon);
    const begin = () => { this.soon = 0; this.run(); };
    this.soon = this.started && !this.sketch?.open ? setTimeout(begin, 120) : 0;
  }

  reset() {
    this.chosen = null;
    this.change(structuredClone(this.spec.start));
  }

  readLink(search = location.search) {
    const { state, refused } = stateOfLink(this.spec, search), all = refused.join(", ");
    Object.assign(this.state, state);
    if (all) this.say(`The link asks for what this lab does not have: ${all}.`, true);
  }

  query() { return linkOfState(this.spec, this.state); }

  // The state of a link in the text, run at once.
  go(search) {
    this.chosen = null;
    Object.assign(this.state, structuredClone(this.spec.start));
    this.say("");
    this.readLink(search);
    this.show();
    this.writeLink();
    this.run();
  }

  // Running

  // What `side` generates from any state.
  sample(state, side, working) {
    return this.answers.ask({ ask: "sample", spec: this.spec, state, side }, working);
  }

  async run() {
    const turn = ++this.turn, shown = structuredClone(this.state), results = {};
    const { spec } = this, { target, count, steps } = shown;
    const working = (what, frame, side) => {
      if (turn !== this.turn) return;
      const step = typeof what === "number" ? `Sampling, step ${what} of ${steps}` : "Sampling";
      this.say(`${typeof what === "string" ? what : step} …`);
      if (frame) this.stream(side, frame, spec.schedules[shown.schedule][steps][what]);
    };
    const about = (side) => JSON.stringify({ ...shown, left: shown[side], right: "" });
    this.time.pause();
    this.streamed = false;
    this.press.disabled = true;
    this.say(this.started ? "Sampling …" : "Loading the denoisers …");
    const coming = this.answers.ask({ ask: "data", spec, target, count });
    coming.catch(() => {}); // awaited when the sides are there
    try {
      // one after the other: a side that fails is the last word, and a changed mind asks no more
      for (const side of SIDES) {
        if (turn !== this.turn) return;
        // a side that does not change is not computed again
        if (this.made[side]?.about !== about(side)) {
          const seen = (what, frame) => working(what, frame, side);
          const result = await this.sample(shown, side, seen);
          this.made[side] = { about: about(side), result };
        }
        results[side] = this.made[side].result;
      }
      const data = await coming;
      if (turn === this.turn) this.arrive({ data, results, shown });
    } catch ({ message }) {
      if (turn !== this.turn) return;
      this.over.hidden = false;
      this.stage.classList.toggle("lab-stale", this.started);
      this.draw(); // as it was, over what has come of a side
      const remedy = `Change something ${this.started ? "" : "or press again "}to retry.`;
      this.say(message.endsWith(".") ? message : `${message}. ${remedy}`, true);
    } finally {
      if (turn === this.turn) this.press.disabled = false;
    }
  }

  arrive({ data, results, shown }) {
    const sentence = (side) => `${this.title(side)}: ${results[side].numbers.diverged} of ` +
      `${shown.particles} particles diverged and are not drawn.`;
    const lost = SIDES.filter((side) => results[side].numbers.diverged > 0);
    Object.assign(this, { data, results, shown, started: true });
    this.time.begin(this.spec.schedules[shown.schedule][shown.steps]);
    this.particle.max = shown.particles;
    this.over.remove();
    this.stage.classList.remove("lab-stale");
    for (const still of this.stills) still.remove();
    this.say(lost.map(sentence).join(" "));
    for (const side of SIDES) this.tell(side, results[side].numbers);
    this.sides.target.numbers.replaceChildren(h("dt", {}, this.aboutTarget()), h("dd"));
    this.show();
    this.choose(this.chosen);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!still && !this.streamed) this.time.play();
    this.streamed = false;
  }

  // A step of a side that is on its way; of the plane, where all is there at once, none comes.
  stream(side, frame, sigma) {
    this.streamed = true;
    this.over.hidden = true;
    this.stills[1 + SIDES.indexOf(side)]?.remove();
    this.drawFrame(side, frame, sigma);
  }

  title(side) {
    const [name, value, sampler] = this.shown[side], { knob } = this.family(name);
    const parts = [name, knob && `${knob} ${value}`, this.spec.samplers_apart && sampler];
    return parts.filter(Boolean).join(", ");
  }

  tell(side, numbers) {
    const rows = numbers ? this.numbers(numbers) : [];
    this.sides[side].numbers.replaceChildren(...rows.flatMap((row) => this.row(row)));
  }

  row([name, text, value, scale]) {
    const beside = scale && Number.isFinite(value) ? bar(value, scale, this.ends) : "";
    return [h("dt", {}, name), h("dd", { "data-value": value ?? "" }, text, beside)];
  }

  // What the distance would be of a perfect denoiser, and of noise.
  scale() {
    const { target, count, particles } = this.shown ?? this.state, { image, scales } = this.spec;
    return scales[[target, image ? count : particles].join("/")];
  }

  numbers({ distance, copies, diverged }) {
    return [
      [this.distance, fixed(distance), distance, this.scale()],
      ["copies", Number.isFinite(copies) ? `${fixed(100 * copies, 1)} %` : "–", copies],
      ["diverged", `${diverged} of ${this.state.particles}`, diverged],
    ];
  }

  // Drawing

  draw() {
    // nothing to see: drawn when it comes into view
    if (!this.results || !this.stage.clientWidth) return;
    this.time.show();
    this.drawTarget();
    for (const side of SIDES) this.drawSide(side);
  }

  // One particle

  end(side, i) {
    const { frames } = this.results[side], left = (this.shown.particles - i) * this.d;
    return frames.subarray(frames.length - left).subarray(0, this.d);
  }

  near(side, i) {
    const result = this.results[side], end = this.end(side, i), { training } = this.data;
    if (!training || isLost(end)) return null;
    // the page's worker has found them all
    return ((result.near ??= [])[i] ??= nearest(end, training, this.d));
  }

  trainingPoint(index) {
    const point = this.data.training.subarray(index * this.d, (index + 1) * this.d);
    return point instanceof Uint8Array ? Float32Array.from(point, (v) => v / 255) : point;
  }

  pick(side, event) {
    const width = this.sides[side].canvas.clientWidth;
    if (this.results && side !== "target") this.choose(this.at(side, event, width));
  }

  choose(i) {
    this.chosen = i !== null && i >= 0 && i < this.shown.particles ? i : null;
    this.particle.value = this.chosen === null ? "" : i + 1;
    const fate = (side) => {
      const end = this.end(side, i), near = this.near(side, i);
      return `${this.title(side)}: ${isLost(end) ? "it diverged" : this.fate(end, near)}.`;
    };
    this.detail.textContent = this.chosen === null ? this.results && this.hint()
      : `${this.noun} ${i + 1}, the same noise on both sides. ${SIDES.map(fate).join(" ")}`;
    this.draw();
  }

  away(near, what) {
    const copy = isCopy(near) ? ": a copy" : ": not a copy", { length } = this.data.training;
    return `at distance ${fixed(Math.sqrt(near.best))} from ${what}${length > this.d ? copy : ""}`;
  }
}
