// The trainings of a lab, in the page's worker: one for each side.

import { Files, loadRuntime, once, safetensors } from "./files.js";
import { measure } from "./measures.js";
import { sample } from "./samplers.js";
import { layersOf, Training } from "./train.js";
import {
  apartness, copier, copierLoss, generatedLogDensity, gridPoints, pictureOf,
} from "./truth.js";

const LAST = 2 ** 31 - 1; // a stream of noise that no step reaches
const FLOOR = 2048; // rows of which the copier's loss is the mean

export class Trainings extends Files {
  trainings = {};

  // In the order asked, whatever arrives first.
  async begin({ side, state }) {
    this.trainings[side] = this.open(side, state);
    return (await this.trainings[side]).told;
  }

  async open(side, state) {
    const { low, high, size, levels, name } = this.spec, chosen = state[side];
    const { widths, degree, hears, apart } = layersOf(chosen);
    const ort = await once("runtime", loadRuntime);
    const graphs = await this.get("graphs.safetensors.gz", safetensors);
    const kind = degree ? `degree ${degree}` : `${chosen.activation} ${chosen.depth}`;
    const opened = (what) => once(`${name} ${kind} ${what}`, () =>
      ort.InferenceSession.create(graphs[`${kind} ${what}`]));
    const sessions = { step: await opened("step"), field: await opened("field") };
    const about = {
      widths, degree, hears, low, high, size, skip: chosen.skip === "yes", seed: state.seed,
      levels: apart ? levels : 0, rate: Number(state.rate), until: Number(state.steps),
    };
    const truth = await this.truth(state), { training: points } = truth;
    const training = new Training(ort, sessions, about, points), count = training.states.length;
    const own = apart ? training.states.map((_, k) => training.level(k)) : [0];
    const losses = own.map((sigma) =>
      copierLoss(points, training.batch(LAST, Math.floor(FLOOR / count), sigma)));
    const weights = training.weights().flat().reduce((sum, { length }) => sum + length, 0);
    const floor = losses.reduce((a, b) => a + b, 0) / count;
    return { training, truth, told: { floor, weights } };
  }

  // The training points, and what is known of a target beside its own points.
  async drawn({ target, count, points }) {
    if (target === this.spec.own) return { training: Float64Array.from(points), known: {} };
    const known = await this.get(`${target.replaceAll(" ", "_")}.safetensors.gz`, safetensors);
    return { training: Float64Array.from(known.points.subarray(0, 2 * Number(count))), known };
  }

  // The points, and the laws of target and copier on the grid.
  async truth(state) {
    const { extent, cells, blur } = this.spec, { training, known } = await this.drawn(state);
    const grid = gridPoints(extent, cells);
    const log = (i) => copier(training, grid.subarray(2 * i, 2 * i + 2), blur).log;
    const copied = Float64Array.from({ length: cells ** 2 }, (_, i) => log(i));
    const fresh = known.reference && Float64Array.from(known.reference);
    const chance = fresh && measure(fresh, 2, training).copies;
    return { training, grid, copied, chance, target: known.log_p };
  }

  async data({ state }) {
    const { training, known } = await this.drawn(state);
    return { training, target: known.log_p && pictureOf(known.log_p, this.spec.cells) };
  }

  // Steps for so long, or so many; their losses.
  async train({ side, milliseconds, steps }) {
    const { training } = await this.trainings[side], { until } = training.about, losses = [];
    const began = performance.now();
    while (training.step < until && losses.length < steps) {
      losses.push(await training.next());
      if (performance.now() - began > milliseconds) break;
    }
    return { step: training.step, losses, milliseconds: performance.now() - began };
  }

  // What it generates now: paths of particles, and where asked the exact density, and answers to
  // the points of a lattice.
  async look({ side, seed, density, lattice, sigma }) {
    const { training, truth } = await this.trainings[side], { spec } = this;
    const { cells, extent } = spec;
    const field = (y, level) => training.field(y, level);
    const denoise = async (y, level) => (await field(y, level)).x;
    const about = { sampler: "Heun", denoise, n: spec.particles, d: 2, sigmas: spec.sigmas, seed };
    const paths = await sample({ ...about, seen: () => {} }), end = paths.at(-1);
    const frames = new Float32Array(paths.length * end.length);
    paths.forEach((path, i) => frames.set(path, i * end.length));
    const { copies } = measure(end, 2, truth.training), within = (v) => Math.abs(v) <= extent;
    const inside = end.filter((x, i) => i % 2 === 0 && within(x) && within(end[i + 1])).length;
    const numbers = { copies, chance: truth.chance, outside: spec.particles - inside };
    const found = { frames, numbers };
    if (lattice) found.answers = await denoise(lattice, sigma);
    if (!density) return found;
    const { blur, high, density_steps: steps } = spec, cell = ((2 * extent) / cells) ** 2;
    const log = await generatedLogDensity(field, truth.grid, blur, high, steps);
    const apart = (other) => other && apartness(other, log, cell);
    // a power below 1, so that a thin ridge does not hide the rest
    const generated = pictureOf(log, cells, 0.7), above = this.above(training, truth.training);
    return { ...found, generated, above, target: apart(truth.target), copier: apart(truth.copied) };
  }

  // Mean over the last steps of their loss less the copier's, on the same batches.
  above(training, points) {
    const last = training.losses.slice(-this.spec.recent), first = training.step - last.length;
    const gaps = last.map((loss, i) => loss - copierLoss(points, training.rows(first + i + 1)));
    return gaps.reduce((a, b) => a + b, 0) / last.length;
  }
}
