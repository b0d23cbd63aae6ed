// A lab in which the reader trains: two networks on the same points and noise, and what they
// generate while they learn.

import { Page } from "./answers.js";
import { Board, BOTH, FAR, OWN } from "./board.js";
import { clamp, h } from "./dom.js";
import { Time } from "./time.js";

const SLICE = 60, LOOK = 300; // milliseconds of training between two reports, and two looks
const MOST = 256, APART = 5; // own points: their number, the least distance along a stroke
const FRESH = () => ({ begun: null, step: 0, losses: [], found: null, exact: null, trouble: "" });

// Coordinates, in units of the window, as a byte each.
const pointsOfText = (text) => {
  const packed = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Array.from(packed, (c) => ((c.charCodeAt(0) << 24) >> 24) / FAR);
};
const textOfPoints = (points) =>
  btoa(String.fromCharCode(...points.map((v) => Math.round(FAR * v) & 255)))
    .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export class Trainer extends Board {
  sides = {};
  running = false;
  stroke = null;
  cursor = null;

  constructor(root, spec, caption, answers) {
    super(root, spec, caption);
    this.linked = answers instanceof Page;
    this.still = root.querySelector(".lab-still")?.firstElementChild;
    // a worker for each side: two cores train
    for (const side of BOTH) {
      this.sides[side] = { answers: this.linked ? new Page() : answers, turn: 0, ...FRESH() };
    }
    this.build();
    if (this.linked) this.readLink();
    this.show();
    this.theme = new MutationObserver(() => requestAnimationFrame(() => this.draw()));
    const themes = { attributeFilter: ["data-theme", "data-jp-theme-name"] };
    for (const e of [document.documentElement, document.body]) this.theme.observe(e, themes);
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  close() {
    this.theme.disconnect();
    this.stop();
  }

  // Building

  build() {
    const { choices, presets } = this.spec;
    this.time = new Time(() => this.draw());
    const names = presets.map(({ name }) => name), about = { "aria-label": "experiment" };
    this.preset = this.menu(["choose one …", ...names], (i) => i && this.take(presets[i - 1]), about);
    this.told = h("p", { class: "lab-detail", "aria-live": "polite" });
    this.status = h("p", { class: "lab-status", role: "status" });
    this.toggle = this.button("▶ Train", () => (this.running ? this.stop() : this.start()));
    this.toggle.classList.add("lab-go");
    const own = h("span", { class: "lab-controls" },
      this.button("Remove last", () => this.draws(this.state.points.slice(0, -2))),
      this.button("Clear", () => this.draws([])));
    const count = this.slider("points", "count", choices.count);
    this.shows.push(() => {
      own.hidden = this.state.target !== OWN;
      count.hidden = !own.hidden;
      this.toggle.textContent = this.running ? "⏸ Pause" : "▶ Train";
    });
    const marks = { particles: "particles", density: "density", target: "target", score: "the denoiser's push" };
    this.marks = { particles: true, density: true, target: true, score: false };
    const ticks = Object.entries(marks).map(([key, text]) => {
      const tick = () => { this.marks[key] = box.checked; key === "score" ? this.look() : this.draw(); };
      const box = h("input", { type: "checkbox", onchange: tick });
      box.checked = this.marks[key];
      return h("label", { class: "lab-tick" }, box, text);
    });
    this.time.slider.addEventListener("change", () => this.marks.score && this.look());
    this.timeline = h("div", { class: "lab-time" }, this.time.button, this.time.slider, this.time.told);
    this.stage = h("div", { class: "train-stage" }, ...BOTH.map((side) => this.buildSide(side)));
    this.fill("train",
      h("div", { class: "lab-controls" },
        h("label", {}, "experiment", this.preset),
        this.select("target", "target", choices.target),
        count, own,
        this.select("steps", "steps", choices.steps),
        this.select("learning rate", "rate", choices.rate),
        this.number("seed", "seed", 2 ** 32 - 1, 0)),
      this.told,
      h("div", { class: "lab-controls" },
        this.toggle,
        this.button("One step", () => this.start(1)),
        this.button("Start over", () => this.again(BOTH)),
        ...ticks),
      this.status, this.stage, this.timeline,
      h("div", { class: "lab-controls" },
        this.button("Reset all", () => this.change(structuredClone(this.spec.start))),
        this.linked ? this.button("Copy link to this state", () => this.copyLink()) : ""));
  }

  buildSide(side) {
    const s = this.sides[side], { choices } = this.spec;
    const canvas = h("canvas", { width: 10, height: 10, role: "img", tabindex: 0 });
    const curve = h("canvas", { width: 10, height: 10, role: "img", class: "train-curve" });
    const numbers = h("dl", { class: "lab-numbers" });
    canvas.onpointerdown = (event) => this.press(event, canvas);
    canvas.onpointermove = (event) => this.stroke && this.drag(event, canvas);
    canvas.onpointerup = canvas.onpointercancel = () => { this.stroke = null; };
    canvas.onkeydown = (event) => this.type(event);
    Object.assign(s, { canvas, curve, numbers });
    const of = (key) => this.state[side][key];
    const part = (label, key, shown) => {
      const values = choices[key], words = (v) => this.spec.words[v] ?? v;
      const choose = (i) => this.change({ [side]: { ...this.state[side], [key]: values[i] } });
      const about = { "aria-label": `${label}, ${side} network` };
      const menu = this.menu(values.map(words), choose, about), holder = h("label", {}, label, menu);
      this.shows.push(() => {
        menu.selectedIndex = values.indexOf(of(key));
        holder.hidden = !shown();
      });
      return holder;
    };
    const network = () => of("kind") === "network", always = () => true;
    return h("div", { class: `train-side lab-${side}` },
      h("div", { class: "lab-choice" },
        part("architecture", "kind", always),
        part("degree", "degree", () => !network()),
        ...["width", "depth", "activation", "narrow", "level"].map((key) => part(key, key, network)),
        part("skip", "skip", always)),
      h("div", { class: "lab-view" }, canvas), curve, numbers);
  }

  // State

  title(side) {
    const { kind, degree, width, depth, activation, narrow, level, skip } = this.state[side];
    if (kind === "polynomial") return `polynomial of degree ${degree}`;
    const parts = [`width ${width}`, `depth ${depth}`, activation];
    if (narrow !== "none") parts.push(`narrow ${narrow}`);
    if (level !== "told") parts.push(`level ${level}`);
    if (skip === "no") parts.push("no skip");
    return `network, ${parts.join(", ")}`;
  }

  query() {
    const { start, name } = this.spec, parts = [];
    const differ = (key, value, first) => value !== first && parts.push([key, value]);
    for (const key of ["target", "count", "steps", "rate", "seed"]) {
      differ(key, String(this.state[key]), String(start[key]));
    }
    differ("points", textOfPoints(this.state.points.map((v) => v / this.spec.extent)), "");
    for (const side of BOTH) {
      for (const key of Object.keys(start[side])) {
        differ(`${side}.${key}`, this.state[side][key], start[side][key]);
      }
    }
    return parts.length ? `?${new URLSearchParams([["lab", name], ...parts])}` : "";
  }

  readLink() {
    const query = new URLSearchParams(location.search), { choices, name } = this.spec, refused = [];
    if (query.get("lab") !== name) return;
    for (const [key, value] of query) {
      const [side, part] = key.split("."), known = choices[part ?? key];
      if (key === "seed" && /^\d{1,10}$/.test(value) && value < 2 ** 32) this.state.seed = Number(value);
      else if (key === "points" && /^[\w-]{1,700}$/.test(value) && value.length % 4 !== 1) {
        const points = pointsOfText(value);
        const kept = points.slice(0, 2 * Math.min(MOST, points.length >> 1));
        this.state.points = kept.map((v) => v * this.spec.extent);
      } else if (known?.includes(value) && (part ? BOTH.includes(side) : true)) {
        (part ? this.state[side] : this.state)[part ?? key] = value;
      } else if (["seed", "points"].includes(key) || known) refused.push(`${key} ${value}`);
    }
    const all = refused.join(", ");
    if (all) this.say(`The link asks for what this lab does not have: ${all}.`, true);
  }

  // A preset is a state and a sentence that says what to look at; it starts at once.
  take({ text, state }) {
    const { start } = this.spec, next = structuredClone({ ...start, ...state });
    for (const side of BOTH) next[side] = { ...start[side], ...state[side] };
    this.told.textContent = text;
    this.running = true;
    this.change(next);
  }

  change(part) {
    const before = JSON.stringify(this.state), of = (state, side) => JSON.stringify(state[side]);
    const old = structuredClone(this.state);
    super.change(part);
    if (JSON.stringify(this.state) === before && !this.running) return;
    const sides = BOTH.filter((side) => of(old, side) !== of(this.state, side));
    const rest = (state) => JSON.stringify({ ...state, left: 0, right: 0 });
    this.again(rest(old) !== rest(this.state) ? BOTH : sides.length ? sides : BOTH);
  }

  update() { this.writeLink(this.query()); }

  // Training

  // Forgets what these sides have learned; those that were training start again.
  again(sides) {
    for (const side of sides) {
      const s = this.sides[side];
      s.turn += 1;
      Object.assign(s, FRESH());
    }
    this.say("");
    if (this.running) this.start();
    else {
      this.begin(BOTH).then(() => this.look());
      this.draw();
    }
  }

  stop() {
    this.running = false;
    this.show();
  }

  // Both sides go on, to the end or for so many steps.
  start(steps = Infinity) {
    if (this.state.target === OWN && !this.state.points.length) {
      this.running = false;
      this.show();
      return this.say("Draw the points first: press on a picture, or reach it by the Tab key, move by arrows, set by Enter.", true);
    }
    this.running = steps === Infinity;
    this.show();
    return Promise.all(BOTH.map((side) => this.train(side, steps)));
  }

  ask(side, question) {
    const working = (what) => typeof what === "string" && this.say(`${what} …`);
    return this.sides[side].answers.ask({ spec: this.spec, side, ...question }, working);
  }

  begin(sides) { return Promise.all(sides.map((side) => this.begins(side).catch(() => {}))); }

  async begins(side) {
    const s = this.sides[side], { turn } = s;
    if (this.state.target === OWN && !this.state.points.length) return;
    s.begun ??= (async () => {
      const state = structuredClone(this.state);
      const key = JSON.stringify([state.target, state.count, state.points]);
      if (this.data?.key !== key) this.data = { key, ...await this.ask(side, { ask: "data", state }) };
      return this.ask(side, { ask: "begin", state });
    })();
    const { floor, weights } = await s.begun;
    if (turn === s.turn) Object.assign(s, { floor, weights });
  }

  async train(side, steps) {
    const s = this.sides[side], turn = ++s.turn, until = Number(this.state.steps);
    const mine = () => turn === s.turn;
    let looked = 0, cost = 0;
    try {
      if (!s.begun) this.say("Loading …");
      await this.begins(side);
      if (mine()) this.say("");
      while (mine() && (this.running || steps < Infinity) && s.step < until && steps > 0) {
        const { step, losses, milliseconds } = await this.ask(side, { ask: "train", milliseconds: SLICE, steps });
        if (!mine()) return;
        steps -= losses.length;
        Object.assign(s, { step, pace: (1000 * losses.length) / milliseconds });
        for (const loss of losses) s.losses.push(loss);
        if (performance.now() - looked > Math.max(LOOK, 2 * cost) && s.step < until) {
          cost = await this.sees(side, s.step > 0 && performance.now() - (s.seen ?? 0) > 4 * (s.cost ?? 0));
          looked = performance.now();
        } else this.draw();
      }
      if (mine()) await this.sees(side, true);
    } catch ({ message }) {
      if (!mine()) return;
      s.begun = null;
      s.trouble = message;
      this.say(BOTH.filter((side) => this.sides[side].trouble)
        .map((side) => `${side}: ${this.sides[side].trouble}`).join(" "), true);
    }
    if (mine() && BOTH.every((side) => this.sides[side].step >= until || this.sides[side].trouble)) this.stop();
  }

  // Both sides as they are now.
  async look() {
    for (const side of BOTH) {
      if (!this.running && this.sides[side].begun) await this.sees(side, !this.sides[side].exact).catch(() => {});
    }
  }

  // Milliseconds that the look took.
  async sees(side, density) {
    const s = this.sides[side], { turn } = s, began = performance.now(), { seed } = this.state;
    const sigma = this.sigma(), lattice = this.marks.score && this.lattice(sigma);
    const found = await this.ask(side, { ask: "look", seed, density, lattice, sigma });
    const cost = performance.now() - began;
    if (turn !== s.turn) return cost;
    s.found = { ...found, lattice, sigma, turns: this.turns(found.frames) };
    if (density) Object.assign(s, { exact: { ...found, step: s.step }, seen: performance.now(), cost });
    if (!this.time.levels) this.time.begin(this.spec.sigmas);
    this.draw();
    return cost;
  }

  sigma() {
    const { sigmas } = this.spec, at = this.time.levels ? this.time.step() : sigmas.length - 1;
    return sigmas[Math.min(at, sigmas.length - 2)];
  }

  // Own points

  draws(points) {
    const from = this.state.target === OWN ? {} : { target: OWN };
    this.change({ ...from, points });
  }

  add(x, y) {
    const { points } = this.state, whole = (v) => (clamp(Math.round(v), -FAR, FAR) / FAR) * this.spec.extent;
    if (points.length >= 2 * MOST) return this.say(`${MOST} points are the most that a link can carry.`, true);
    this.draws([...points, whole(x), whole(y)]);
  }

  press(event, canvas) {
    if (this.state.target !== OWN) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    this.stroke = [Infinity, Infinity];
    this.drag(event, canvas);
  }

  drag({ offsetX, offsetY }, canvas) {
    const width = canvas.clientWidth, to = (v) => FAR * ((2 * v) / width - 1);
    const [x, y] = [to(offsetX), -to(offsetY)], [u, v] = this.stroke;
    if (!((x - u) ** 2 + (y - v) ** 2 < APART ** 2)) {
      this.stroke = [x, y];
      this.add(x, y);
    }
  }

  type(event) {
    if (this.state.target !== OWN) return;
    const moves = { ArrowLeft: [-6, 0], ArrowRight: [6, 0], ArrowUp: [0, 6], ArrowDown: [0, -6] };
    if (event.key === "Backspace") this.draws(this.state.points.slice(0, -2));
    else if (event.key === "Enter" || event.key === " ") this.add(...(this.cursor ??= [0, 0]));
    else if (moves[event.key]) {
      const [x, y] = this.cursor ?? [0, 0], [u, v] = moves[event.key];
      this.cursor = [clamp(x + u, -FAR, FAR), clamp(y + v, -FAR, FAR)];
      this.draw();
    } else return;
    event.preventDefault();
  }
}
