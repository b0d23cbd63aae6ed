// Two denoisers side by side, from the same noise: choices, running, time. plane.js and images.js
// say how a side is drawn, and what is told of a particle.

import { Page } from "./answers.js";
import { clamp, h, options } from "./dom.js";
import { linkOfState, stateOfLink } from "./link.js";
import { isCopy, isLost, nearest } from "./measures.js";
import { Panel } from "./panel.js";

const SIDES = ["left", "right"];

export const fixed = (value, digits = 3) =>
  (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits));

export class Denoise extends Panel {
  sides = {};
  frame = 0;
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
    // JupyterLab hides all for a moment when its theme changes
    this.theme = new MutationObserver(() => requestAnimationFrame(() => this.draw()));
    const themes = { attributeFilter: ["data-theme", "data-jp-theme-name"] };
    for (const e of [document.documentElement, document.body]) this.theme.observe(e, themes);
    // not the root, which on a page is inline and has no size
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  close() {
    this.theme.disconnect();
  }

  // Building

  build() {
    const { spec } = this, schedules = Object.keys(spec.schedules);
    const stills = this.root.querySelectorAll(".lab-still svg"); // until the first run
    this.press = this.button("▶ Press to run", () => this.run());
    this.over = h("div", { class: "lab-over" }, this.press);
    const panels = ["target", ...SIDES].map((side, i) => this.side(side, stills[i]));
    this.stage = h("div", { class: "lab-stage" }, ...panels, this.over);
    this.detail = h("p", { class: "lab-detail", "aria-live": "polite" });
    this.status = h("p", { class: "lab-status", role: "status" });
    this.fill("denoise",
      h("div", { class: "lab-controls" },
        this.select("target", "target", spec.targets, (t) => t.replace("_", " ")),
        this.select("training points", "count", spec.counts,
          (count) => (count === "all" ? "the whole target" : count)),
        spec.samplers_apart ? "" : h("label", {}, "sampler", this.samplers("sampler", SIDES)),
        this.select("schedule", "schedule", schedules),
        this.select("steps", "steps", Object.keys(spec.schedules[schedules[0]])),
        this.select("particles", "particles", spec.particles),
        this.number("seed", "seed", 2 ** 32 - 1, 0)),
      this.stage, this.buildTime(), this.detail, this.status,
      h("div", { class: "lab-controls" },
        this.button("Reset", () => this.reset()),
        this.linked ? this.button("Copy link to this state", () => this.copyLink()) : ""));
  }

  buildTime() {
    const move = () => {
      this.pause();
      this.frame = this.time.valueAsNumber;
      this.draw();
    };
    const mark = () => this.choose(particle.value === "" ? null : particle.valueAsNumber - 1);
    const particle = h("input", { type: "number", min: 1, onchange: mark });
    const label = h("label", {}, `${this.noun.toLowerCase()} number`, particle);
    const time = { type: "range", min: 0, "aria-label": "step of the sampler", oninput: move };
    this.particle = particle;
    this.play = this.button("▶ Play", () => (this.playing ? this.pause() : this.animate()));
    this.time = h("input", time);
    this.sigma = h("output");
    this.timeline = h("div", { class: "lab-time" }, this.play, this.time, this.sigma, label);
    return this.timeline;
  }

  side(side, still = "") {
    const canvas = h("canvas", { role: "img", "aria-label": `${side} panel, not run yet` });
    const numbers = h("dl", { class: "lab-numbers", "aria-live": "polite" });
    canvas.addEventListener("click", (event) => this.pick(side, event));
    this.sides[side] = { canvas, still, numbers };
    const choice = side === "target" ? [h("strong", {}, "target")] : this.choice(side);
    return h("div", { class: `lab-panel lab-${side}` },
      h("div", { class: "lab-choice" }, ...choice),
      h("div", { class: "lab-view" }, canvas, still), numbers);
  }

  samplers(label, sides) {
    const choose = () => {
      const chosen = (side) => [side, [...this.state[side].slice(0, 2), box.value]];
      this.change(Object.fromEntries(sides.map(chosen)));
    };
    const about = { "aria-label": label, onchange: choose };
    const box = h("select", about, ...options(this.spec.samplers));
    this.shows.push(() => {
      box.value = this.state[sides[0]][2];
    });
    return box;
  }

  // Architecture, its knob, and the sampler where each side has its own.
  choice(side) {
    const { families } = this.spec, architecture = `architecture, ${side} panel`;
    const family = () => families[box.selectedIndex];
    const set = (at) => {
      const { name, values } = family();
      this.change({ [side]: [name, values[clamp(at, 0, values.length - 1)], this.state[side][2]] });
    };
    const box = h("select", { "aria-label": architecture, onchange: () => set(1) },
      ...options(families.map(({ name }) => name)));
    const slide = h("input", { type: "range", min: 0, oninput: () => set(slide.valueAsNumber) });
    const text = h("span"), label = h("label", {}, text, slide);
    this.shows.push(() => {
      const [name, value] = this.state[side];
      box.value = name;
      const { knob, values } = family();
      label.hidden = values.length < 2;
      text.textContent = `${knob} ${value}`;
      slide.max = values.length - 1;
      slide.value = values.indexOf(value);
      slide.setAttribute("aria-label", `${knob}, ${side} panel`);
      slide.setAttribute("aria-valuetext", value);
    });
    const apart = this.spec.samplers_apart;
    return [box, label, apart ? this.samplers(`sampler, ${side} panel`, [side]) : ""];
  }

  // State

  show() {
    super.show();
    this.timeline.hidden = !this.started;
    if (this.started) return;
    const first = linkOfState(this.spec, this.state) === "";
    for (const { still } of Object.values(this.sides)) {
      if (still) still.toggleAttribute("hidden", !first);
    }
    for (const side of SIDES) this.tell(side, first && this.spec.numbers?.[side]);
  }

  update() {
    this.writeLink();
    clearTimeout(this.soon);
    const begin = () => {
      this.soon = 0;
      this.run();
    };
    this.soon = this.started ? setTimeout(begin, 120) : 0;
  }

  reset() {
    this.chosen = null;
    this.change(structuredClone(this.spec.start));
  }

  readLink() {
    const { state, refused } = stateOfLink(this.spec, location.search);
    Object.assign(this.state, state);
    if (!refused.length) return;
    this.say(`The link asks for what this lab does not have: ${refused.join(", ")}.`, true);
  }

  writeLink() {
    if (!this.linked) return;
    const query = linkOfState(this.spec, this.state), { pathname, hash } = location;
    const address = query ? `${query}#lab-${this.spec.name}` : pathname + hash;
    history.replaceState(history.state, "", address);
  }

  async copyLink() {
    const address = `${location.href.split("#")[0]}#lab-${this.spec.name}`;
    try {
      await navigator.clipboard.writeText(address);
      this.say("The link to this state is on the clipboard.");
    } catch {
      this.say(`The link to this state: ${address}`);
    }
  }

  // Running

  say(text, bad = false) {
    this.status.textContent = text;
    this.status.toggleAttribute("data-bad", bad);
  }

  // What the answers say of any state, without the controls.
  sample(state, side = "left") {
    const { spec } = this;
    return this.answers.ask({ ask: "sample", spec, state: { ...spec.start, ...state }, side });
  }

  async run() {
    const turn = ++this.turn, state = structuredClone(this.state), { spec } = this;
    const { target, count } = state, results = {};
    const ask = (question) => this.answers.ask({ spec, ...question }, (what) => {
      if (turn === this.turn) this.say(typeof what === "string" ? `${what} …` : "Sampling …");
    });
    this.pause();
    this.press.disabled = true;
    this.say(this.started ? "Sampling …" : "Loading the denoisers …");
    try {
      const data = await ask({ ask: "data", target, count });
      // one after the other: a side that fails is the last word, and a changed mind asks no more
      for (const side of SIDES) {
        if (turn !== this.turn) return;
        results[side] = await ask({ ask: "sample", state, side });
      }
      if (turn === this.turn) this.arrive({ data, results, shown: state });
    } catch ({ message }) {
      if (turn !== this.turn) return;
      this.stage.classList.toggle("lab-stale", this.started);
      const again = this.started ? "to retry" : "or press again to retry";
      this.say(message.endsWith(".") ? message : `${message}. Change something ${again}.`, true);
    } finally {
      if (turn === this.turn) this.press.disabled = false;
    }
  }

  arrive({ data, results, shown }) {
    Object.assign(this, { data, results, shown, started: true });
    this.over.remove();
    this.stage.classList.remove("lab-stale");
    for (const { still } of Object.values(this.sides)) if (still) still.remove();
    this.steps = this.levels().length - 1;
    this.time.max = this.steps;
    this.particle.max = shown.particles;
    const lost = SIDES.filter((side) => results[side].numbers.diverged > 0).map((side) =>
      `${this.title(side)}: ${results[side].numbers.diverged} of ${shown.particles} particles ` +
      "diverged and are not drawn.");
    this.say(lost.join(" "));
    for (const side of SIDES) this.tell(side, results[side].numbers);
    this.sides.target.numbers.replaceChildren(h("dt", {}, this.aboutTarget()), h("dd"));
    this.show();
    this.choose(this.chosen);
    this.frame = this.steps;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.draw();
    else this.animate();
  }

  title(side) {
    const [name, value, sampler] = this.shown[side];
    const { knob } = this.spec.families.find((f) => f.name === name);
    const parts = [name, knob && `${knob} ${value}`, this.spec.samplers_apart && sampler];
    return parts.filter(Boolean).join(", ");
  }

  tell(side, numbers) {
    const rows = (numbers ? this.numbers(numbers) : []).flatMap(([name, text, value]) =>
      [h("dt", {}, name), h("dd", { "data-value": value ?? "" }, text)]);
    this.sides[side].numbers.replaceChildren(...rows);
  }

  numbers({ distance, copies, diverged }) {
    return [
      [this.distance, fixed(distance), distance],
      ["copies", typeof copies === "number" ? `${(100 * copies).toFixed(1)} %` : "–", copies],
      ["diverged", `${diverged} of ${this.state.particles}`, diverged],
    ];
  }

  // Time

  levels() {
    return this.spec.schedules[this.shown.schedule][this.shown.steps];
  }

  pause() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.play.textContent = "▶ Play";
  }

  animate() {
    if (!this.results) return;
    const from = this.frame >= this.steps ? 0 : this.frame, began = performance.now();
    const pace = Math.max(this.steps / 3000, 1 / 250);
    this.play.textContent = "⏸ Pause";
    const next = (now) => {
      this.frame = Math.min(from + (now - began) * pace, this.steps);
      this.draw();
      if (this.frame < this.steps) this.playing = requestAnimationFrame(next);
      else this.pause();
    };
    this.playing = requestAnimationFrame(next);
  }

  draw() {
    // nothing to see: drawn when it comes into view
    if (!this.results || !this.stage.clientWidth) return;
    const at = Math.floor(this.frame), sigma = this.levels()[at], step = `step ${at} of ${this.steps}`;
    this.time.value = at;
    this.time.setAttribute("aria-valuetext", step);
    this.sigma.textContent = `${step}, σ = ${sigma ? sigma.toPrecision(3) : 0}`;
    this.drawTarget();
    for (const side of SIDES) this.drawSide(side);
  }

  context(side, aspect, label) {
    const { canvas } = this.sides[side], width = canvas.clientWidth, scale = devicePixelRatio || 1;
    canvas.setAttribute("aria-label", label);
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(width * aspect * scale));
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return [context, width];
  }

  // One particle

  end(side, i) {
    const { frames } = this.results[side];
    return frames.subarray(frames.length - (this.shown.particles - i) * this.d).subarray(0, this.d);
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
    this.chosen = i !== null && i >= 0 && i < this.shown?.particles ? i : null;
    this.particle.value = this.chosen === null ? "" : this.chosen + 1;
    const fate = (side) => {
      const end = this.end(side, i), near = this.near(side, i);
      return `${this.title(side)}: ${isLost(end) ? "it diverged" : this.fate(end, near)}.`;
    };
    if (!this.results) this.detail.textContent = "";
    else if (this.chosen === null) this.detail.textContent = this.hint();
    else {
      const fates = SIDES.map(fate).join(" ");
      this.detail.textContent = `${this.noun} ${i + 1}, the same noise on both sides. ${fates}`;
    }
    this.draw();
  }

  away(near, what) {
    const copy = isCopy(near) ? ": a copy" : ": not a copy", one = this.data.training.length === this.d;
    return `at distance ${fixed(Math.sqrt(near.best))} from ${what}${one ? "" : copy}`;
  }
}
