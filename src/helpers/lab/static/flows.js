// Does a pressure belong to its rock? The reader chooses a network and a noise, squeezes the
// pressure or walks it down its residual, and sees what the residual says and what the solution of
// the equation says. Formulas as in helpers.systems.bastek.darcy; all is computed here.

import { bytes, h, paint, range } from "./dom.js";
import { redAndBlue } from "./eigen.js";
import { Panel } from "./panel.js";

// Each face of the grid with its two cells; steps down a residual ask for the same ones again.
const facesOf = new Map();
function faces(size) {
  if (!facesOf.has(size)) {
    const found = [];
    for (let i = 0; i < size * size; i++) {
      if ((i + 1) % size) found.push([i, i + 1]);
      if (i + size < size * size) found.push([i, i + size]);
    }
    facesOf.set(size, found);
  }
  return facesOf.get(size);
}

// A(K) p: what leaves each cell, sum over its faces of (K_i + K_j) / 2 (p_i - p_j) / h^2.
export function leaving(K, p, size) {
  const out = new Float64Array(size * size);
  for (const [i, j] of faces(size)) {
    const flux = ((K[i] + K[j]) / 2) * (p[i] - p[j]) * size * size;
    out[i] += flux;
    out[j] -= flux;
  }
  return out;
}

// The pressure of mean zero with A(K) p = f, by elimination; the constants are lifted by size^2.
export function solved(K, f, size) {
  const n = size * size, rows = range(n).map((i) => {
    const row = new Float64Array(n + 1).fill(n);
    row[n] = f[i];
    return row;
  });
  for (const [i, j] of faces(size)) {
    const k = ((K[i] + K[j]) / 2) * n;
    rows[i][i] += k;
    rows[j][j] += k;
    rows[i][j] -= k;
    rows[j][i] -= k;
  }
  for (let c = 0; c < n; c++) {
    let best = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(rows[r][c]) > Math.abs(rows[best][c])) best = r;
    [rows[c], rows[best]] = [rows[best], rows[c]];
    const head = rows[c];
    for (let r = c + 1; r < n; r++) {
      const factor = rows[r][c] / head[c];
      if (factor) for (let k = c; k <= n; k++) rows[r][k] -= factor * head[k];
    }
  }
  const p = new Float64Array(n);
  for (let r = n - 1; r >= 0; r--) {
    let sum = rows[r][n];
    for (let c = r + 1; c < n; c++) sum -= rows[r][c] * p[c];
    p[r] = sum / rows[r][r];
  }
  return p;
}

// `steps` of p <- p - A (A p - f) / L^2, L = 8 max |K| / h^2.
export function descended(K, p, f, size, steps) {
  const L = 8 * size * size * K.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  let moved = Float64Array.from(p);
  for (let s = 0; s < steps; s++) {
    const off = leaving(K, moved, size).map((v, i) => v - f[i]), back = leaving(K, off, size);
    moved = moved.map((v, i) => v - back[i] / L ** 2);
  }
  return moved;
}

const average = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
const length = (values) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));

// What is said of a pair: the residual of each cell and its mean size, the solution, the distance
// to it over its length (levels of pressure mean nothing), and the mean size that no pressure has.
export function judge(K, p, f, size) {
  const residual = leaving(K, p, size).map((v, i) => v - f[i]), solution = solved(K, f, size);
  const level = average(p), size_of = (values) => average(values.map(Math.abs));
  const error = length(p.map((v, i) => v - level - solution[i])) / length(solution);
  return { residual, solution, mean: size_of(residual), nothing: size_of(f), error,
    positive: K.every((v) => v > 0) };
}

const ENDS = { p: 0.3, residual: 4, K: 5 }; // where the colours end
const FLOW_TITLES = ["permeability", "pressure", "residual", "solution for this rock"];

export class Flows extends Panel {
  constructor(root, spec, caption) {
    super(root, spec, caption);
    this.source = Float64Array.from(spec.source);
    this.fields = Object.fromEntries(Object.entries(spec.fields).map(([name, pair]) => [name,
      pair.map((text) => Float64Array.from(new Float32Array(bytes(text).buffer)))]));
    this.build();
    this.change({});
  }

  build() {
    const { pictures, amplitudes, steps } = this.spec, names = Object.keys(this.fields);
    this.canvases = FLOW_TITLES.map(() => h("canvas", { role: "img" }));
    this.status = h("p", { role: "status" });
    this.fill("flows",
      h("div", { class: "lab-controls" },
        this.slider("physics in training:", "network", names),
        this.select("noise", "picture", range(pictures), (i) => `number ${i + 1}`),
        this.slider("pressure times", "amplitude", amplitudes),
        this.slider("steps down the residual:", "descent", steps)),
      h("div", { class: "eigen-stage" },
        ...this.canvases.map((canvas, i) => h("div", {}, h("div", {}, FLOW_TITLES[i]), canvas))),
      this.status);
  }

  update() {
    const { network, picture, amplitude, descent } = this.state, { size } = this.spec;
    const n = size * size;
    const [drawn, K] = this.fields[network].map((all) => all.slice(picture * n, (picture + 1) * n));
    const squeezed = drawn.map((v) => amplitude * v);
    const p = descended(K, squeezed, this.source, size, descent);
    const found = judge(K, p, this.source, size), said = found.mean.toFixed(2);
    const grid = [size, size], words = `mean size of the residual ${said}`;
    [[K.map((v) => v / ENDS.K), "Permeability, white is large"],
      [redAndBlue(p, ENDS.p), "Pressure, red is positive"],
      [redAndBlue(found.residual, ENDS.residual), `Residual of each cell; ${words}`],
      [redAndBlue(found.solution, ENDS.p), "Solution for this permeability"],
    ].forEach(([image, label], i) => {
      this.canvases[i].setAttribute("aria-label", label);
      paint(this.canvases[i], image, grid);
    });
    const rock = found.positive ? "" : " A cell of this rock is not positive: no flow has it.";
    this.status.textContent = `Mean size of the residual ${said}; a field of zeros has ` +
      `${found.nothing.toFixed(2)}. The pressure is ${(100 * found.error).toFixed(0)} % away ` +
      `from the solution for its rock.${rock}`;
  }
}
