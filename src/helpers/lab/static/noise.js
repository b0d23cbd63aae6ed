// Gaussian noise with the same bits as helpers.noise.

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

export function threefry(key0, key1, low, high = 0) {
  const keys = [key0 | 0, key1 | 0, key0 ^ key1 ^ 0x1bd11bda];
  let x = (low + keys[0]) | 0, y = (high + keys[1]) | 0;
  for (let block = 0; block < 5; block++) {
    for (const r of ROTATIONS[block % 2]) {
      x = (x + y) | 0;
      y = ((y << r) | (y >>> (32 - r))) ^ x;
    }
    x = (x + keys[(block + 1) % 3]) | 0;
    y = (y + keys[(block + 2) % 3] + block + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}

// Sums and products alone: the logarithm and the cosine of Math may differ in the last bit.
function logarithm(bits) {
  let e = bits ? 32 - Math.clz32(bits) : 0, m = (bits + 0.5) / 2 ** e;
  if (m < 0.7) [m, e] = [2 * m, e - 1];
  const s = (m - 1) / (m + 1);
  let p = 0;
  for (let k = 21; k > 0; k -= 2) p = p * (s * s) + 1 / k;
  return (e - 32) * Math.LN2 + 2 * s * p;
}

function circle(bits) {
  const a = (((bits & 0x3fffffff) + 0.5) / 2 ** 30 - 0.5) * (Math.PI / 2);
  let c = 1, s = 1;
  for (let k = 16; k > 0; k -= 2) {
    c = 1 - ((a * a) / (k * (k - 1))) * c;
    s = 1 - ((a * a) / (k * (k + 1))) * s;
  }
  s *= a;
  return [[c, s], [-s, c], [-c, -s], [s, -c]][bits >>> 30];
}

export function normal(count, seed, stream = 0) {
  const z = new Float64Array(count + (count % 2));
  for (let i = 0; i < z.length; i += 2) {
    const [a, b] = threefry(seed, stream, i / 2);
    const radius = Math.sqrt(-2 * logarithm(a)), [c, s] = circle(b);
    z[i] = radius * c;
    z[i + 1] = radius * s;
  }
  return z.subarray(0, count);
}
