// The labs: elements of the static page, and widgets beside a kernel.

import { Kernel, Page } from "./answers.js";
import { Atlas } from "./atlas.js";
import { Eigen } from "./eigen.js";
import { Flows } from "./flows.js";
import { Guess } from "./guess.js";
import { Images } from "./images.js";
import { Plane } from "./plane.js";
import { Trainer } from "./trainer.js";
import { Voters } from "./voters.js";

const LABS = {
  "denoise-lab": (spec) => (spec.image ? Images : Plane),
  "train-lab": () => Trainer,
  "patch-voters": () => Voters,
  "eigen-shrinkage": () => Eigen,
  "flow-lab": () => Flows,
  "reader-guess": () => Guess,
  "creativity-map": () => Atlas,
};

let page;
for (const [name, kind] of globalThis.customElements ? Object.entries(LABS) : []) {
  if (customElements.get(name)) continue;
  customElements.define(name, class extends HTMLElement {
    connectedCallback() {
      if (this.panel) return;
      const spec = JSON.parse(this.querySelector("script").textContent), Lab = kind(spec);
      const caption = this.querySelector("figcaption")?.textContent ?? "";
      this.panel = new Lab(this, spec, caption, (page ??= new Page()));
    }
  });
}

// Jupyter and Colab, through anywidget.
export default {
  render({ model, el }) {
    const root = document.createElement("div"), spec = model.get("spec");
    const Lab = LABS[model.get("element")](spec);
    el.append(root);
    const panel = new Lab(root, spec, model.get("caption"), new Kernel(model));
    return () => panel.close(); // the cell ran again, or is gone
  },
};
