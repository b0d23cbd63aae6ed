// What the labs share: controls that show `this.state` and change it.

import { clamp, h, options } from "./dom.js";

export class Panel {
  shows = []; // each brings one control up to date

  constructor(root, spec, caption) {
    Object.assign(this, { root, spec, caption, state: structuredClone(spec.start) });
  }

  // JupyterLab takes the arrow keys, and x to cut the cell, where an element does not say this.
  fill(name, ...children) {
    const label = `Lab: ${this.caption}`, caption = this.caption && h("figcaption", {}, this.caption);
    const about = { role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" };
    this.root.replaceChildren(h("figure", { class: `lab ${name}`, ...about }, ...children, caption));
  }

  select(label, key, values, text = String) {
    const choose = () => this.change({ [key]: values[box.selectedIndex] });
    const box = h("select", { onchange: choose }, ...options(values.map(text)));
    this.shows.push(() => {
      box.selectedIndex = values.indexOf(this.state[key]);
    });
    return values.length > 1 ? h("label", {}, label, box) : "";
  }

  slider(label, key, values, text = String) {
    const move = () => this.change({ [key]: values[range.valueAsNumber] });
    const range = h("input", { type: "range", min: 0, max: values.length - 1, oninput: move });
    const told = h("span");
    this.shows.push(() => {
      const value = text(this.state[key]);
      range.value = values.indexOf(this.state[key]);
      range.setAttribute("aria-valuetext", value);
      told.textContent = `${label} ${value}`;
    });
    return h("label", {}, told, range);
  }

  // A whole number, which the reader counts from `first` and the state from 0.
  number(label, key, last, first = 1) {
    const whole = () => clamp(Math.trunc(box.valueAsNumber) || first, first, last) - first;
    const enter = () => this.change({ [key]: whole() });
    const box = h("input", { type: "number", min: first, max: last, onchange: enter });
    this.shows.push(() => {
      box.value = this.state[key] + first;
    });
    return h("label", {}, label, box);
  }

  button(text, onclick) {
    return h("button", { type: "button", onclick }, text);
  }

  show() {
    for (const show of this.shows) show();
  }

  change(part) {
    Object.assign(this.state, part);
    this.show();
    this.update();
  }

  close() {}
}
