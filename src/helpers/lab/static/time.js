// Which step of a sampler is shown: a slider, and a button that plays frames between two steps.

import { h } from "./dom.js";

export class Time {
  frame = 0;
  playing = 0;

  constructor(draw) {
    const toggle = () => (this.playing ? this.pause() : this.play());
    const move = () => { this.pause(); this.frame = this.slider.valueAsNumber; draw(); };
    const about = { type: "range", min: 0, "aria-label": "step of the sampler", oninput: move };
    this.draw = draw;
    this.button = h("button", { type: "button", onclick: toggle }, "▶ Play");
    this.slider = h("input", about);
    this.told = h("output");
  }

  // The noise level of each step; the last one is shown.
  begin(levels) {
    this.levels = levels;
    this.frame = this.steps = this.slider.max = levels.length - 1;
  }

  step() { return Math.floor(this.frame); }

  show() {
    const step = this.step(), sigma = this.levels[step], text = `step ${step} of ${this.steps}`;
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", text);
    this.told.textContent = `${text}, σ = ${sigma ? sigma.toPrecision(3) : 0}`;
  }

  pause() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.button.textContent = "▶ Play";
  }

  play() {
    const from = this.frame >= this.steps ? 0 : this.frame, began = performance.now();
    const pace = Math.max(this.steps / 3000, 1 / 250); // in frames per millisecond
    this.button.textContent = "⏸ Pause";
    const next = (now) => {
      this.frame = Math.min(from + (now - began) * pace, this.steps);
      this.draw();
      if (this.frame < this.steps) this.playing = requestAnimationFrame(next);
      else {
        this.pause();
        this.rested?.();
      }
    };
    this.playing = requestAnimationFrame(next);
  }
}
