// A lab in which the reader trains: two networks, or several that have names, on the same points
// and noise, and what they generate while they learn.

import { Page } from "./answers.js";
import { Board, FAR } from "./board.js";
import { clamp, directions, h } from "./dom.js";
import { Time } from "./time.js";

const SLICE = 60, LOOK = 300; // milliseconds of training between two reports, and two looks
const MOST = 256, APART = 5; // own points: their number, the least distance along a stroke
const FRESH = () => ({
  begun: null, step: 0, losses: [], found: null, exact: null, trouble: "", left: 0, busy: false,
  floor: undefined, weights: undefined, pace: undefined,
});

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
    const stills = [...root.querySelectorAll(".lab-still svg")]; // shown until there is something
    // two workers: two cores train
    const workers = this.linked ? [new Page(), new Page()] : [answers];
    this.names.forEach((side, i) => {
      const still = stills.shift() ?? "";
      this.sides[side] = { answers: workers[i % workers.length], still, turn: 0, ...FRESH() };
    });
    this.build();
    const asked = this.linked && this.readLink();
    this.show();
    this.watch(this.stage);
    if (asked) this.forgetStills();
    if (this.beginsItself(asked) && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.whenSeen(this.stage, () => this.running || this.start());
    }
  }

  close() {
    super.close();
    this.stop();
  }

  // Building

  build() {
    const { choices, presets } = this.spec;
    this.time = new Time(() => this.draw());
    const names = presets.map(({ name }) => name), about = { "aria-label": "experiment" };
    const take = (i) => (i ? this.take(presets[i - 1]) : this.change({}));
    this.preset = this.menu(["choose one …", ...names], take, about);
    this.told = h("p", { class: "lab-detail", "aria-live": "polite" });
    this.status = h("p", { class: "lab-status", role: "status" });
    this.toggle = this.button("▶ Train", () => (this.running ? this.stop() : this.start()));
    this.toggle.classList.add("lab-go");
    const own = h("span", { class: "lab-controls" },
      this.button("Remove last", () => this.change({ points: this.state.points.slice(0, -2) })),
      this.button("Clear", () => this.change({ points: [] })));
    const count = this.slider("points", "count", choices.count);
    this.shows.push(() => {
      own.hidden = !this.drawable();
      count.hidden = !own.hidden;
      this.toggle.textContent = this.running ? "⏸ Pause" : "▶ Train";
    });
    this.marks = { particles: true, density: true, target: true, push: false };
    const ticks = Object.keys(this.marks).map((key) => {
      const text = { push: "the denoiser's push", target: "the target's density" }[key] ?? key;
      const tick = () => {
        this.marks[key] = box.checked;
        if (this.marks.push) this.look();
        this.draw();
      };
      const box = h("input", { type: "checkbox", onchange: tick });
      box.checked = this.marks[key];
      return h("label", { class: "lab-tick" }, box, text);
    });
    const { button, slider, told } = this.time;
    slider.addEventListener("change", () => this.marks.push && this.look());
    this.time.rested = () => this.marks.push && this.look();
    this.timeline = h("div", { class: "lab-time" }, button, slider, told);
    const more = (...controls) => (this.named ? [] : controls), panels = this.named
      ? this.names.map((side) => this.buildNamed(side))
      : this.names.map((side) => this.buildSide(side));
    this.stage = h("div", { class: "train-stage" }, ...panels);
    this.fill(this.named ? "train train-named" : "train",
      h("div", { class: "lab-controls" },
        ...more(h("label", {}, "experiment", this.preset)),
        this.select("target", "target", choices.target),
        count, own,
        ...more(this.select("steps", "steps", choices.steps),
          this.select("learning rate", "rate", choices.rate)),
        this.number("seed", "seed", 2 ** 32 - 1, 0)),
      this.told,
      h("div", { class: "lab-controls" },
        this.toggle,
        ...more(this.button("One step", () => this.start(1))),
        this.button("Start over", () => this.again(this.names)),
        ...more(...ticks)),
      this.status, this.stage, this.timeline,
      h("div", { class: "lab-controls" },
        this.button("Reset all", () => this.change(structuredClone(this.spec.start))),
        this.linked ? this.button("Copy link to this state", () => this.copyLink()) : ""));
  }

  // A picture in which own points are drawn, its curve and its numbers.
  buildView(side) {
    const canvas = h("canvas", { width: 10, height: 10, role: "img" });
    const curve = h("canvas", { width: 10, height: 10, role: "img", class: "train-curve" });
    const numbers = h("dl", { class: "lab-numbers" });
    canvas.onpointerdown = (event) => this.press(event, canvas);
    canvas.onpointermove = (event) => this.stroke && this.drag(event, canvas);
    canvas.onpointerup = canvas.onpointercancel = () => this.lift();
    canvas.onkeydown = (event) => this.type(event);
    // a finger draws own points, and scrolls the page anywhere else
    this.shows.push(() => {
      canvas.classList.toggle("train-own", this.drawable());
      canvas.tabIndex = this.drawable() ? 0 : -1;
    });
    return Object.assign(this.sides[side], { canvas, curve, numbers });
  }

  // A network that has a name and no menus.
  buildNamed(side) {
    const { canvas, numbers, still } = this.buildView(side);
    return h("div", { class: "train-side" }, h("strong", {}, side),
      h("div", { class: "lab-view" }, canvas, still), numbers);
  }

  buildSide(side) {
    const { canvas, curve, numbers, still } = this.buildView(side), { choices } = this.spec;
    const of = (key) => this.state[side][key];
    const part = (label, key, shown) => {
      const values = choices[key], words = (v) => this.spec.words[v] ?? v;
      const choose = (i) => this.change({ [side]: { ...this.state[side], [key]: values[i] } });
      const about = { "aria-label": `${label}, ${side} network` };
      const menu = this.menu(values.map(words), choose, about);
      const holder = h("label", {}, label, menu);
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
        ...["width", "depth", "activation", "narrow", "level"].map((k) => part(k, k, network)),
        part("skip", "skip", always)),
      h("div", { class: "lab-view" }, canvas, still), curve, numbers);
  }

  // State

  drawable() { return this.state.target === this.spec.own; }

  title(side) {
    if (this.named) return "network";
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
    const own = this.drawable() ? this.state.points : [];
    differ("points", textOfPoints(own.map((v) => v / this.spec.extent)), "");
    for (const side of this.names) {
      for (const key of Object.keys(start[side])) {
        differ(`${side}.${key}`, this.state[side][key], start[side][key]);
      }
    }
    return parts.length ? `?${new URLSearchParams([["lab", name], ...parts])}` : "";
  }

  forgetStills() { for (const side of this.names) this.sides[side].still.remove?.(); }

  // The state of a link in the text, trained at once.
  go(search) {
    this.stop();
    Object.assign(this.state, structuredClone(this.spec.start));
    this.say("");
    this.readLink(search);
    this.change({});
    this.start();
  }

  readLink(search = location.search) {
    const query = new URLSearchParams(search), { choices, name } = this.spec, refused = [];
    if (query.get("lab") !== name) return false;
    for (const [key, value] of query) {
      const [side, part] = key.split("."), { start } = this.spec;
      const has = this.names.includes(side) ? part && Object.hasOwn(start[side], part) : !part;
      const known = has && Object.hasOwn(choices, part ?? key) && choices[part ?? key];
      if (key === "seed" && /^\d{1,10}$/.test(value) && value < 2 ** 32) {
        this.state.seed = Number(value);
      } else if (key === "points" && /^[\w-]{1,700}$/.test(value) && value.length % 4 !== 1) {
        const points = pointsOfText(value);
        const kept = points.slice(0, 2 * Math.min(MOST, points.length >> 1));
        this.state.points = kept.map((v) => v * this.spec.extent);
      } else if (known && (part || Object.hasOwn(start, key)) && known.includes(value)) {
        (part ? this.state[side] : this.state)[part ?? key] = value;
      } else if (["seed", "points"].includes(key) || known) refused.push(`${key} ${value}`);
    }
    const all = refused.join(", ");
    if (all) this.say(`The link asks for what this lab does not have: ${all}.`, true);
    return !all;
  }

  // A preset is a state and a sentence that says what to look at; it starts at once.
  take({ text, state }) {
    this.stop();
    this.change(structuredClone(state));
    this.preset.selectedIndex = 1 + this.spec.presets.findIndex((preset) => preset.text === text);
    this.told.textContent = text;
    this.start();
  }

  change(part) {
    const old = structuredClone(this.state), of = (state, side) => JSON.stringify(state[side]);
    const none = Object.fromEntries(this.names.map((side) => [side, 0]));
    const rest = (state) => JSON.stringify({ ...state, ...none });
    super.change(part);
    this.preset.selectedIndex = 0;
    this.told.textContent = "";
    const sides = this.names.filter((side) => of(old, side) !== of(this.state, side));
    this.again(rest(old) === rest(this.state) && sides.length ? sides : this.names);
  }

  update() { this.writeLink(); }

  // Training

  // Forgets what these sides have learned; while the lab trains they start again.
  again(sides) {
    for (const side of sides) {
      const s = this.sides[side];
      s.turn += 1;
      Object.assign(s, FRESH());
      s.still.remove?.();
    }
    this.say("");
    if (this.running) this.start();
    else this.look();
    this.draw();
  }

  stop() {
    this.running = false;
    for (const side of this.names) this.sides[side].left = 0;
    this.show();
  }

  // Both sides go on, to the end or for so many steps.
  start(steps = Infinity) {
    const until = Number(this.state.steps);
    if (this.drawable() && !this.state.points.length) {
      this.stop();
      const by = "press on a picture, or go there by Tab, move by the arrows, set by Enter";
      this.say(`Draw the points first: ${by}.`, true);
      return;
    }
    if (this.names.every((side) => this.sides[side].step >= until)) {
      this.say(`All ${until} steps are done: start over, or choose more steps.`);
      return;
    }
    this.running ||= steps === Infinity;
    this.show();
    for (const side of this.names) {
      const s = this.sides[side];
      s.left += steps;
      if (!s.busy) this.train(side);
    }
  }

  ask(side, question) {
    const working = (what) => typeof what === "string" && this.say(`${what} …`);
    return this.sides[side].answers.ask({ spec: this.spec, side, ...question }, working);
  }

  async begin(side) {
    const s = this.sides[side], { turn } = s;
    const told = await (s.begun ??= this.open(side));
    if (turn === s.turn) Object.assign(s, told);
  }

  async open(side) {
    const s = this.sides[side], { turn } = s, state = structuredClone(this.state);
    const key = JSON.stringify([state.target, state.count, state.points]);
    Object.assign(s, { step: 0, losses: [], trouble: "" });
    if (this.data?.key !== key) {
      const data = await this.ask(side, { ask: "data", state });
      if (turn !== s.turn) return {}; // a later choice has begun already
      this.data = { key, ...data };
    }
    return this.ask(side, { ask: "begin", state });
  }

  async train(side) {
    const s = this.sides[side], { turn } = s, until = Number(this.state.steps);
    const mine = () => turn === s.turn, more = () => mine() && s.left > 0 && s.step < until;
    let looked = 0, cost = 0;
    s.busy = true;
    try {
      if (!s.begun) this.say("Loading …");
      await this.begin(side);
      if (mine()) this.say("");
      do {
        while (more()) {
          const asked = { ask: "train", milliseconds: SLICE, steps: s.left };
          const { step, losses, milliseconds } = await this.ask(side, asked);
          if (!mine()) return;
          Object.assign(s, { step, pace: (1000 * losses.length) / milliseconds });
          s.left = Math.max(0, s.left - losses.length);
          for (const loss of losses) s.losses.push(loss);
          if (performance.now() - looked > Math.max(LOOK, 2 * cost)) {
            // the density costs more: a fifth of the time
            cost = await this.sees(side, performance.now() - (s.seen ?? 0) > 4 * (s.cost ?? 0));
            looked = performance.now();
          } else this.draw();
        }
        if (mine()) await this.sees(side, true);
      } while (more());
    } catch ({ message }) {
      if (!mine()) return;
      Object.assign(s, { begun: null, trouble: message });
      const told = this.names.filter((one) => this.sides[one].trouble);
      this.say(told.map((one) => `${one}: ${this.sides[one].trouble}`).join(" "), true);
    }
    if (!mine()) return;
    s.busy = false;
    const rests = ({ busy, step, trouble }) => !busy && (step >= until || trouble);
    if (!this.names.every((one) => rests(this.sides[one]))) return;
    if (this.running && !this.names.some((one) => this.sides[one].trouble)) {
      this.say(`All ${until} steps are done.`);
    }
    this.stop();
  }

  // Both sides as they are now, where they are not training.
  async look() {
    for (const side of this.names) {
      const s = this.sides[side], { turn } = s, mine = () => turn === s.turn;
      if (s.busy || (this.drawable() && !this.state.points.length)) continue;
      try {
        await this.begin(side);
        if (mine() && !s.busy) await this.sees(side, !s.exact);
      } catch ({ message }) {
        if (!mine()) continue;
        s.begun = null;
        this.say(message, true);
      }
    }
  }

  // Milliseconds that the look took.
  async sees(side, density) {
    const s = this.sides[side], { turn } = s, began = performance.now(), { seed } = this.state;
    const sigma = this.sigma(), lattice = this.marks.push && this.lattice(sigma);
    const found = await this.ask(side, { ask: "look", seed, density, lattice, sigma });
    const cost = performance.now() - began;
    if (turn !== s.turn) return cost;
    s.still.remove?.();
    s.found = { ...found, lattice, sigma, turns: directions(found.frames, this.spec.particles) };
    if (density) Object.assign(s, { exact: found, seen: performance.now(), cost });
    if (!this.time.levels) this.time.begin(this.spec.sigmas);
    this.draw();
    return cost;
  }

  sigma() {
    const { sigmas } = this.spec, at = this.time.levels ? this.time.step() : sigmas.length - 1;
    return sigmas[Math.min(at, sigmas.length - 2)];
  }

  // Own points

  add(x, y) {
    const { points } = this.state, { extent } = this.spec;
    const whole = (v) => (clamp(Math.round(v), -FAR, FAR) / FAR) * extent;
    if (points.length >= 2 * MOST) {
      this.full = true;
      return;
    }
    this.state.points = [...points, whole(x), whole(y)];
    this.draw();
  }

  // What was drawn is the training set from now on.
  drawn() {
    this.change({});
    if (this.full) this.say(`${MOST} points are the most that a link can carry.`, true);
    this.full = false;
  }

  press(event, canvas) {
    if (!this.drawable() || event.button) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    this.stroke = [Infinity, Infinity];
    this.drag(event, canvas);
  }

  drag({ offsetX, offsetY }, canvas) {
    const width = canvas.clientWidth, to = (v) => FAR * ((2 * v) / width - 1);
    const [x, y] = [to(offsetX), -to(offsetY)], [u, v] = this.stroke;
    if (Math.max(Math.abs(x), Math.abs(y)) > FAR) return; // the pointer has left the picture
    if (!((x - u) ** 2 + (y - v) ** 2 < APART ** 2)) {
      this.stroke = [x, y];
      this.add(x, y);
    }
  }

  lift() {
    if (this.stroke) this.drawn();
    if (this.stroke && this.named) this.start(); // nothing else has to be chosen
    this.stroke = null;
  }

  type(event) {
    if (!this.drawable()) return;
    const moves = { ArrowLeft: [-6, 0], ArrowRight: [6, 0], ArrowUp: [0, 6], ArrowDown: [0, -6] };
    if (event.key === "Backspace") this.change({ points: this.state.points.slice(0, -2) });
    else if (event.key === "Enter" || event.key === " ") {
      this.add(...(this.cursor ??= [0, 0]));
      this.drawn();
    } else if (moves[event.key]) {
      const [x, y] = this.cursor ?? [0, 0], [u, v] = moves[event.key];
      this.cursor = [clamp(x + u, -FAR, FAR), clamp(y + v, -FAR, FAR)];
      this.draw();
    } else return;
    event.preventDefault();
  }
}
