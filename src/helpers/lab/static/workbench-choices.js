// The choices of a workbench: controls of images, networks and training, which write its draft.

import { h } from "./dom.js";
import { Panel } from "./panel.js";

// What a reader typed for an option: a number, a list or a word.
export function typed(text) {
  if (/^\s*(none|null)?\s*$/i.test(text)) return null;
  try { return JSON.parse(text); } catch { return text.trim(); }
}

export class Choices extends Panel {
  // A labelled control that writes draft values.
  field(label, value, choices, write, wide = false) {
    const words = { true: "yes", false: "no", null: "as fits" };
    const shown = choices?.map((v) => words[v] ?? String(v));
    let control;
    if (choices) {
      control = this.menu(shown, (i) => { write(choices[i]); this.label(); });
      control.selectedIndex = choices.indexOf(value);
    } else {
      const number = typeof value === "number";
      const text = value && typeof value === "object" ? JSON.stringify(value) : value ?? "";
      const about = { step: "any", value: text, placeholder: "as fits" };
      control = h("input", { type: number ? "number" : "text", ...about });
      control.onchange = () => { write(typed(control.value)); this.label(); };
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
    const menu = this.menu(names, (i) => { choose(names[i]); this.label(); });
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
}
