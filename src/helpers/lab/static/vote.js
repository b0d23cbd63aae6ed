// Local machines, as in helpers.kernels.local. images: bytes, N * height * width, 255 times as
// large as x. y: height * width numbers. Windows have an odd `side` and are cut at the border.

// Who votes for the pixel at (row, column), and with which weight. The window around it is compared
// with the patches at its own place by the "local" machine, with those at all places that lie
// inside an image by the "equivariant" one, on the pixels that the window has.
export function vote({ images, y, height, width, row, column, side, sigma, machine }) {
  const reach = (side - 1) / 2, d = height * width, n = images.length / d, voters = [];
  const [top, left] = [Math.max(-reach, -row), Math.max(-reach, -column)];
  const [bottom, right] = [Math.min(reach, height - 1 - row), Math.min(reach, width - 1 - column)];
  const everywhere = machine === "equivariant";
  const [r0, r1] = everywhere ? [reach, height - 1 - reach] : [row, row];
  const [c0, c1] = everywhere ? [reach, width - 1 - reach] : [column, column];
  const squares = (image, r, c) => {
    let sum = 0;
    for (let i = top; i <= bottom; i++) {
      const here = (row + i) * width + column, there = image * d + (r + i) * width + c;
      for (let j = left; j <= right; j++) sum += (y[here + j] - images[there + j] / 255) ** 2;
    }
    return sum;
  };
  for (let image = 0; image < n; image++) {
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        const value = images[image * d + r * width + c] / 255;
        voters.push({ image, row: r, column: c, value, weight: squares(image, r, c) });
      }
    }
  }
  const best = voters.reduce((least, { weight }) => Math.min(least, weight), Infinity);
  let total = 0, concentration = 0, estimate = 0;
  for (const voter of voters) {
    voter.weight = Math.exp((best - voter.weight) / (2 * sigma ** 2));
    total += voter.weight;
  }
  for (const voter of voters) {
    voter.weight /= total;
    concentration += voter.weight ** 2;
    estimate += voter.weight * voter.value;
  }
  voters.sort((a, b) => b.weight - a.weight);
  return { estimate, effective: 1 / concentration, count: voters.length, voters };
}

// The local machine's estimate of every pixel, by running sums of squares along rows and columns.
export function localMean({ images, y, height, width, side, sigma }) {
  const reach = (side - 1) / 2, d = height * width, n = images.length / d;
  const distances = new Float64Array(n * d), best = new Float64Array(d).fill(Infinity);
  const sums = (from, at, step, size, to) => { // of windows along one row or column
    const total = new Float64Array(size + 1);
    for (let i = 0; i < size; i++) total[i + 1] = total[i] + from[at + i * step];
    for (let i = 0; i < size; i++) {
      to[at + i * step] = total[Math.min(size, i + reach + 1)] - total[Math.max(0, i - reach)];
    }
  };
  for (let image = 0; image < n; image++) {
    const squares = y.map((v, p) => (v - images[image * d + p] / 255) ** 2);
    const across = new Float64Array(d), found = distances.subarray(image * d, (image + 1) * d);
    for (let r = 0; r < height; r++) sums(squares, r * width, 1, width, across);
    for (let c = 0; c < width; c++) sums(across, c, width, height, found);
    for (let p = 0; p < d; p++) best[p] = Math.min(best[p], found[p]);
  }
  const total = new Float64Array(d), mean = new Float64Array(d);
  for (let k = 0; k < n * d; k++) {
    const p = k % d, weight = Math.exp((best[p] - distances[k]) / (2 * sigma ** 2));
    total[p] += weight;
    mean[p] += (weight * images[k]) / 255;
  }
  return mean.map((sum, p) => sum / total[p]);
}
