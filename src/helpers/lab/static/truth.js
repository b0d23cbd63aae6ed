// What is exact beside a training: the law of the flow, the copier's law and its loss.

export function gridPoints(extent, n) {
  const width = (2 * extent) / n, points = new Float64Array(2 * n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) { // x slowly, y fast, as helpers.density.grid
      points.set([width * (i + 0.5) - extent, width * (j + 0.5) - extent], 2 * (i * n + j));
    }
  }
  return points;
}

// The logarithm of the density that the flow of `field` gives to points y at the level low, as
// helpers.density.generated_log_density: Runge-Kutta of order 4 in log sigma.
export async function generatedLogDensity(field, points, low, high, steps) {
  const count = points.length / 2, h = Math.log(high / low) / steps;
  let y = Float64Array.from(points), u = Math.log(low);
  const change = new Float64Array(count), gone = new Uint8Array(count);
  const slope = async (z, level) => {
    const { x, trace } = await field(z, Math.exp(level));
    return [z.map((v, i) => v - x[i]), trace.map((v) => 2 - v)];
  };
  for (let s = 0; s < steps; s++, u += h) {
    const start = y, ahead = (k, part) => start.map((v, i) => v + part * h * k[i]);
    const [k1, c1] = await slope(start, u);
    const [k2, c2] = await slope(ahead(k1, 0.5), u + h / 2);
    const [k3, c3] = await slope(ahead(k2, 0.5), u + h / 2);
    const [k4, c4] = await slope(ahead(k3, 1), u + h);
    const sum = (a, b, c, d, i) => (h / 6) * (a[i] + 2 * b[i] + 2 * c[i] + d[i]);
    y = start.map((v, i) => v + sum(k1, k2, k3, k4, i));
    for (let i = 0; i < count; i++) {
      change[i] += sum(c1, c2, c3, c4, i);
      const far = Math.max(Math.abs(y[2 * i]), Math.abs(y[2 * i + 1]));
      if (!(far < 1e3 * high)) gone[i] = 1; // no start comes there
    }
  }
  const unit = 2 * Math.log(high * Math.sqrt(2 * Math.PI));
  const away = (i) => (y[2 * i] ** 2 + y[2 * i + 1] ** 2) / (2 * high ** 2);
  return change.map((v, i) => (gone[i] ? -Infinity : v - away(i) - unit));
}

// log of the mean over the training points of N(y; x, sigma^2), and the copier's answer D(y).
export function copier(training, [y0, y1], sigma) {
  const count = training.length / 2, exponents = new Float64Array(count);
  let peak = -Infinity;
  for (let i = 0; i < count; i++) {
    const far = (y0 - training[2 * i]) ** 2 + (y1 - training[2 * i + 1]) ** 2;
    exponents[i] = -far / (2 * sigma ** 2);
    peak = Math.max(peak, exponents[i]);
  }
  let sum = 0, a = 0, b = 0;
  for (let i = 0; i < count; i++) {
    const w = Math.exp(exponents[i] - peak);
    sum += w;
    a += w * training[2 * i];
    b += w * training[2 * i + 1];
  }
  const log = peak + Math.log(sum / count) - Math.log(2 * Math.PI * sigma ** 2);
  return { log, x: [a / sum, b / sum] };
}

// The mean loss of the copier on the rows of a batch: the least that there is.
export function copierLoss(training, batch) {
  let total = 0;
  for (let i = 0; i < batch.length; i += 9) {
    const [x0, x1, y0, y1] = batch.subarray(i, i + 4), weight = batch[i + 8];
    const { x } = copier(training, [y0, y1], (weight - 1) ** -0.5);
    total += (weight * ((x[0] - x0) ** 2 + (x[1] - x1) ** 2)) / 2;
  }
  return (9 * total) / batch.length;
}

// The total variation of two laws, as the mass of p that q lacks: right also where q leaves the
// grid, and where only q is thinner than a cell.
export const apartness = (logP, logQ, cell) =>
  logP.reduce((sum, p, i) => sum + Math.max(0, Math.exp(p) - Math.exp(logQ[i])), 0) * cell;

// A density's power, rows from the top, 8 bits, brightest at its own peak.
export function pictureOf(logP, n, power = 1) {
  const peak = logP.reduce((a, b) => Math.max(a, b), -Infinity);
  return Uint8Array.from({ length: n * n }, (_, k) => {
    const log = logP[(k % n) * n + n - 1 - Math.floor(k / n)];
    return peak === -Infinity ? 0 : Math.round(255 * Math.exp(power * (log - peak)));
  });
}
