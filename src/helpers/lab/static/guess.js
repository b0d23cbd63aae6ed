// A reader's prediction, and beside it what was measured: shown once there is a prediction.

import { COLOURS, h, svg } from "./dom.js";
import { Panel } from "./panel.js";

// The number that was typed, also as 0,3 or 1/9 and with its unit; NaN for anything else.
export function typed(text, unit) {
  if (/[1-9]\d*,\d{3}\b/.test(text)) return NaN; // a thousand, or a decimal comma?
  const parts = text.replace(unit, "").replaceAll(",", ".").split("/");
  if (parts.length > 2 || parts.some((part) => !part.trim())) return NaN;
  return parts.map(Number).reduce((a, b) => a / b);
}

export function comparison(guess, value) {
  if (guess === value) return "just as you said";
  const way = guess > value ? "large" : "small", times = Math.max(guess / value, value / guess);
  const two = (number) => Number(number.toPrecision(2));
  if (value <= 0 || guess <= 0) return `your guess is ${two(Math.abs(guess - value))} too ${way}`;
  if (times <= 1.1) return "your guess is right to a tenth";
  return `your guess is ${two(times)} times too ${way}`;
}

export class Guess extends Panel {
  constructor(root, spec, caption) {
    super(root, spec, caption);
    const about = { type: "text", inputmode: "decimal", autocomplete: "off", size: 8 };
    this.box = h("input", { ...about, placeholder: `${spec.low} to ${spec.high}` });
    this.status = h("p", { class: "lab-status", role: "status", "aria-live": "polite" });
    this.scale = h("div", { class: "guess-scale", hidden: "" });
    const compare = (event) => { event.preventDefault(); this.answer(); };
    const label = h("label", {}, spec.unit ? `Your guess, ${spec.unit}` : "Your guess", this.box);
    const button = h("button", { type: "submit" }, "Compare");
    const form = h("form", { class: "lab-controls", onsubmit: compare }, label, button);
    this.fill("guess", form, this.status, this.scale);
  }

  answer() {
    const { value, low, high, unit } = this.spec, text = this.box.value.trim();
    const guess = typed(text, unit), of = unit && ` ${unit}`;
    let said = `You said ${guess}${of}; measured ${value}${of}: ${comparison(guess, value)}.`;
    const bad = !(guess >= low && guess <= high);
    if (bad) {
      const none = text ? `“${text}” is no number` : "Nothing is typed";
      const why = Number.isNaN(guess) ? none : `${guess} lies outside`;
      said = `${why}: type a number from ${low} to ${high}.`;
    }
    this.status.toggleAttribute("data-bad", bad);
    this.status.textContent = said;
    this.scale.hidden = bad;
    const [least, most] = [low, high].map((end) => h("span", {}, end));
    if (!bad) this.scale.replaceChildren(least, this.marks(guess), most);
  }

  // Two marks on a line from low to high. The words beside it say the same.
  marks(guess) {
    const { value, low, high, log } = this.spec;
    const part = (v) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
    const mark = (v, name, colour, y) => {
      const x = `${100 * part(v)}%`;
      const anchor = ["start", "middle", "end"][Math.floor(2.99 * part(v))];
      return [
        svg("circle", { cx: x, cy: 24, r: 6, fill: colour }),
        svg("text", { x, y, "text-anchor": anchor }, `${name} ${v}`),
      ];
    };
    return svg("svg", { "aria-hidden": true },
      svg("line", { x1: 0, x2: "100%", y1: 24, y2: 24 }),
      ...mark(value, "measured", COLOURS.target, 46), ...mark(guess, "you", COLOURS.particle, 12));
  }
}
