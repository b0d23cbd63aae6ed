// Draws the Plotly figures of a page. The library is loaded when the first figure comes near the
// screen, so that pages without one, and readers who never scroll there, do not pay for it.
const figures = [...document.querySelectorAll("figure.plotly-lab")];

const dark = () => document.documentElement.dataset.theme === "dark";

const colours = () => {
  const ink = dark() ? "#ced6dd" : "#222832";
  const line = dark() ? "#48566b" : "#d1d5da";
  const axis = { color: ink, gridcolor: line, linecolor: line };
  const clear = "rgba(0,0,0,0)";
  return { paper_bgcolor: clear, plot_bgcolor: clear, font: { color: ink }, axis };
};

const themed = (layout) => {
  const { axis, ...page } = colours();
  const legend = { ...layout.legend, itemsizing: "constant" };
  const result = { ...layout, ...page, legend, font: { ...layout.font, ...page.font } };
  const more = Object.keys(layout).filter((key) => /^[xy]axis\d/.test(key));
  for (const key of ["xaxis", "yaxis", ...more]) result[key] = { ...layout[key], ...axis };
  const slider = { bgcolor: axis.linecolor, font: page.font };
  result.sliders = (layout.sliders ?? []).map((own) => ({ ...own, ...slider }));
  return result;
};

let library;
const plotly = () =>
  (library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", import.meta.url).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error(`could not load ${script.src}`));
    document.head.append(script);
  }));

// A figure's JSON, compressed and in base64.
async function unpacked(figure) {
  const packed = atob(figure.querySelector("script").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function draw(figure) {
  const target = figure.querySelector(".plotly-target");
  const { data, layout, frames } = await unpacked(figure);
  const { range, scaleanchor } = layout.yaxis ?? {};
  const config = { responsive: true, displayModeBar: false };
  // A square window of the plane is as large as the column lets it be; 130 pixels go to legend,
  // labels and slider.
  if (range && scaleanchor) layout.height = Math.min(target.clientWidth, 480) + 130;
  const Plotly = await plotly();
  target.replaceChildren(); // the still
  await Plotly.newPlot(target, { data, layout: themed(layout), frames, config });
  addKeys(target, layout, frames.length, Plotly);
  const follow = new MutationObserver(() => Plotly.relayout(target, themed(target.layout)));
  follow.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  // For a lecture as large as the window, with numbers that the last row reads.
  const pad = layout.sliders?.[0]?.pad?.t ?? 0;
  let projected = false;
  const fit = () => {
    const lecture = figure.closest(".stage-projected") !== null;
    if (!lecture && !projected) return;
    projected = lecture;
    Plotly.relayout(target, {
      width: lecture ? target.clientWidth : null,
      height: lecture ? innerHeight - 160 : layout.height,
      "font.size": lecture ? 24 : 12,
      "sliders[0].pad.t": lecture ? 2 * pad : pad,
    });
  };
  addEventListener("resize", fit);
  fit(); // the projector may have been first
}

// Plotly's slider answers to the mouse and to touch only: the arrow keys move it too.
function addKeys(target, layout, frames, Plotly) {
  const show = (i) => {
    const still = { frame: { duration: 0, redraw: true }, transition: { duration: 0 } };
    Plotly.animate(target, [String(i)], { mode: "immediate", ...still });
    Plotly.relayout(target, { "sliders[0].active": i });
  };
  target.tabIndex = 0;
  target.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const at = target.layout.sliders?.[0]?.active ?? 0;
    if (!move || at + move < 0 || at + move >= frames) return;
    event.preventDefault();
    show(at + move);
  });
}

const waiting = new Set(figures);
const begin = (figure) => {
  seen.unobserve(figure);
  if (waiting.delete(figure)) draw(figure);
};
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) begin(target);
}, { rootMargin: "300px" });
figures.forEach((f) => seen.observe(f));
addEventListener("beforeprint", () => figures.forEach(begin));
