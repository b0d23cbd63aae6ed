// What the labs share: controls that show `this.state` and change it.

import { clamp, h } from "./dom.js";

export class Panel {
  shows = []; // each brings one control up to date

  constructor(root, spec, caption) {
    Object.assign(this, { root, spec, caption, state: structuredClone(spec.start) });
  }

  // JupyterLab takes the arrow keys, and x to cut the cell, from elements that do not say this.
  fill(name, ...children) {
    const about = { role: "group", "data-lm-suppress-shortcuts": true };
    const figure = { class: `lab ${name}`, "aria-label": `Lab: ${this.caption}`, ...about };
    const caption = this.caption ? [h("figcaption", {}, this.caption)] : [];
    this.root.replaceChildren(h("figure", figure, ...children, ...caption));
  }

  button(text, onclick) { return h("button", { type: "button", onclick }, text); }

  menu(names, choose, about = {}) {
    const menu = h("select", about, ...names.map((name) => h("option", {}, name)));
    menu.onchange = () => choose(menu.selectedIndex);
    return menu;
  }

  select(label, key, values, text = String) {
    const menu = this.menu(values.map(text), (i) => this.change({ [key]: values[i] }));
    this.shows.push(() => { menu.selectedIndex = values.indexOf(this.state[key]); });
    return values.length > 1 ? h("label", {}, label, menu) : "";
  }

  slider(label, key, values, text = String) {
    const move = () => this.change({ [key]: values[slide.valueAsNumber] });
    const slide = h("input", { type: "range", min: 0, max: values.length - 1, oninput: move });
    const told = h("span");
    this.shows.push(() => {
      const value = text(this.state[key]);
      slide.value = values.indexOf(this.state[key]);
      slide.setAttribute("aria-valuetext", value);
      told.textContent = `${label} ${value}`;
    });
    return h("label", {}, told, slide);
  }

  // A whole number, which the reader counts from `first` and the state from 0.
  number(label, key, last, first = 1) {
    const whole = () => clamp(Math.trunc(box.valueAsNumber) || first, first, last) - first;
    const enter = () => this.change({ [key]: whole() });
    const box = h("input", { type: "number", min: first, max: last, onchange: enter });
    this.shows.push(() => { box.value = this.state[key] + first; });
    return h("label", {}, label, box);
  }

  show() { for (const show of this.shows) show(); }

  change(part) {
    Object.assign(this.state, part);
    this.show();
    this.update();
  }

  say(text, bad = false) {
    this.status.textContent = text;
    this.status.toggleAttribute("data-bad", bad);
  }

  // What a link asks for runs as soon as it is seen, and so does the stage, unless this is a phone
  // or a reader who saves data.
  beginsItself(asked) {
    if (!this.linked) return false;
    const light = innerWidth < 600 || navigator.connection?.saveData;
    return asked || (!light && this.root.closest("#stage") !== null);
  }

  whenSeen(element, begin) {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      begin();
    });
    observer.observe(element);
  }

  // The query of the state, empty where it is the first, as the address of the page.
  writeLink() {
    if (!this.linked) return;
    const { pathname, hash } = location, query = this.query();
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

  // Draws again where the theme changes, and where the element does its size. Not the root, which
  // on a page is inline and has none.
  watch(element) {
    // JupyterLab hides all for a moment when its theme changes
    this.theme = new MutationObserver(() => requestAnimationFrame(() => this.draw()));
    const themes = { attributeFilter: ["data-theme", "data-jp-theme-name"] };
    for (const e of [document.documentElement, document.body]) this.theme.observe(e, themes);
    new ResizeObserver(() => this.draw()).observe(element);
  }

  // A canvas made ready to be drawn anew: its context, and its width there.
  context(canvas, aspect, label) {
    const width = canvas.clientWidth, scale = devicePixelRatio || 1;
    canvas.setAttribute("aria-label", label);
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(width * aspect * scale));
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return [context, width];
  }

  close() { this.theme?.disconnect(); }
}
