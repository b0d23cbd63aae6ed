// Elements, and images on a canvas.

function put(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const h = (tag, attributes = {}, ...children) =>
  put(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

export const COLOURS = { target: "#4c72b0", particle: "#d1495b", generated: "#2a9d8f" };

// A particle has the colour of the direction in which it started.
export const HUES = Array.from({ length: 24 }, (_, i) => `hsl(${15 * i} 70% 45%)`);

// Which of n particles started in which direction, by the first frame.
export function directions(frames, n) {
  const found = HUES.map(() => []);
  for (let i = 0; i < n; i++) {
    const turn = Math.atan2(frames[2 * i + 1], frames[2 * i]) / (2 * Math.PI) + 0.5;
    found[Math.min(HUES.length - 1, Math.floor(turn * HUES.length))].push(i);
  }
  return found;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export const range = (length) => Array.from({ length }, (_, i) => i);

export const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

export function putPixels(canvas, pixels) {
  Object.assign(canvas, { width: pixels.width, height: pixels.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// An image of one or three channels, a pixel each. Noise of level sigma around 1/2 is shrunk to the
// range; values outside [0, 1] are drawn black or white.
export function paint(canvas, image, [height, width], sigma = 0) {
  const d = height * width, shrink = 1 / Math.sqrt(1 + 4 * sigma ** 2);
  const pixels = new ImageData(width, height), { data } = pixels;
  const channel = image.length === 3 * d ? d : 0;
  for (let p = 0; p < d; p++) {
    for (let c = 0; c < 3; c++) {
      data[4 * p + c] = 255 * (0.5 + shrink * (image[p + c * channel] - 0.5));
    }
    data[4 * p + 3] = 255;
  }
  return putPixels(canvas, pixels);
}
