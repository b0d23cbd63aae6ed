// The measures of helpers.metrics.

const rows = (y, d) =>
  Array.from({ length: y.length / d }, (_, i) => y.subarray(i * d, (i + 1) * d));

const equal = (points, i, j, d) => points.subarray(i, i + d).every((v, k) => v === points[j + k]);

// Squared distance to the nearest and second nearest distinct training point, Infinity where there
// is but one, and the nearest one's index. Training images are bytes, so that ten thousand of them
// fit: they are 255 times as large as x.
export function nearest(x, training, d) {
  const unit = training instanceof Uint8Array ? 255 : 1;
  let best = Infinity, second = Infinity, index = -1;
  for (let i = 0, k = 0; i < training.length; i += d, k++) {
    let sum = 0;
    for (let j = 0; j < d && sum < second; j++) sum += (unit * x[j] - training[i + j]) ** 2;
    if (sum < best) [second, best, index] = [best, sum, k];
    else if (sum < second && !(sum === best && equal(training, i, index * d, d))) second = sum;
  }
  return { best: best / unit ** 2, second: second / unit ** 2, index };
}

// Samples of the plane: root mean over 32 evenly spaced directions of the projections' squared W2.
export function slicedW2(a, b) {
  const n = a.length / 2, m = b.length / 2;
  const along = (y, c, s) =>
    Float64Array.from({ length: y.length / 2 }, (_, i) => c * y[2 * i] + s * y[2 * i + 1]).sort();
  let total = 0;
  for (let k = 0; k < 32; k++) {
    const c = Math.cos((k * Math.PI) / 32), s = Math.sin((k * Math.PI) / 32);
    const u = along(a, c, s), v = along(b, c, s);
    for (let i = 0, j = 0, at = 0; i < n && j < m; ) {
      const next = Math.min((i + 1) * m, (j + 1) * n); // quantile, in units of 1 / (n m)
      total += ((next - at) / (n * m)) * (u[i] - v[j]) ** 2;
      at = next;
      if (next === (i + 1) * m) i++;
      if (next === (j + 1) * n) j++;
    }
  }
  return Math.sqrt(total / 32);
}

export const isLost = (row) => Number.isNaN(row[0]);
export const isCopy = ({ best, second }) => Math.sqrt(best) < Math.sqrt(second) / 3;

// The nearest training point of every row, null for one that diverged.
export const neighbours = (y, d, training) =>
  training && rows(y, d).map((row) => (isLost(row) ? null : nearest(row, training, d)));

export function measure(y, d, training, reference, near = neighbours(y, d, training)) {
  const kept = rows(y, d).filter((row) => !isLost(row)), there = near?.filter(Boolean);
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / kept.length;
  const found = { diverged: y.length / d - kept.length, copies: null, distance: null };
  if (!kept.length) return found;
  if (there?.some(({ second }) => second < Infinity)) found.copies = mean(there.map(isCopy));
  const points = Float64Array.from(kept.flatMap((row) => [...row]));
  if (reference) found.distance = slicedW2(points, reference);
  else if (there) found.distance = mean(there.map(({ best }) => Math.sqrt(best)));
  return found;
}
