// The map of creativity: a cell for each architecture and number of training images. The reader
// drags through the cells and through the training; the cell shows its samples and its point
// between copying, creating and nonsense, and opens in a lab. Pictures and numbers are those of
// helpers.lab.atlas.

import { clamp, h, range, svg } from "./dom.js";
import { inside } from "./files.js";
import { Panel } from "./panel.js";

const THUMBS = 4, IN_ROW = 8; // samples in a cell of the map, and in a row of a sheet
const WIDE = 320, HIGH = 270, LEFT = 42, BOTTOM = 34, ROOF = 8; // of the plane
const NEAREST = [0, 1.15], KIDS = [0.005, 100]; // what its axes span
const STEP = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

// Where a point of the plane lies: closeness from the left, KID from below, by its logarithm.
export function spot({ closeness, kid }) {
  const [low, high] = KIDS.map(Math.log), up = Math.log(clamp(kid, ...KIDS));
  const across = clamp(closeness / NEAREST[1], 0, 1), rise = (up - low) / (high - low);
  return [LEFT + across * (WIDE - LEFT), (HIGH - BOTTOM) * (1 - rise) + ROOF * rise];
}

const inPercent = (share) => `${(100 * share).toFixed(0)} %`;

export class Atlas extends Panel {
  pictures = new Map();
  refused = ""; // of what a link asked for

  constructor(root, spec, caption) {
    super(root, spec, caption);
    this.linked = !spec.files;
    this.inner = root.querySelector(".atlas-live");
    this.build();
    if (this.linked) this.read(location.search);
    this.change({});
    this.watch(this.plane);
  }

  get kind() { return this.spec.kinds[this.state.kind]; }

  get place() { return [this.kind.rows, this.kind.columns].map((all, i) =>
    all.indexOf([this.state.row, this.state.column][i])); }

  cell([i, j]) { return this.kind.cells[i * this.kind.columns.length + j]; }

  // A denoiser that does not train has one look, which is that of all times.
  look(cell) { return Math.min(this.state.look, cell.said.length - 1); }

  build() {
    const kinds = Object.keys(this.spec.kinds);
    const all = Object.values(this.spec.kinds).flatMap(({ cells }) => cells);
    const looks = Math.max(...all.map(({ said }) => said.length));
    const part = (look) => inPercent((look + 1) / looks);
    this.table = h("table", { class: "atlas-cells" });
    this.plane = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
    this.samples = h("div", { class: "atlas-samples" });
    this.status = h("p", { role: "status" });
    this.detail = h("p", {});
    this.open = this.button("Run this one in the lab", () => this.opened());
    this.fill("atlas",
      h("div", { class: "atlas-stage" }, this.table,
        h("div", {}, this.plane, h("ul", { class: "lab-legend" }))),
      h("div", { class: "lab-controls" },
        this.select("images of", "kind", kinds),
        this.slider("of its training:", "look", range(looks), part), this.open),
      this.status, this.samples, this.detail);
    if (this.inner) this.root.append(this.inner);
    // a press that moves on goes through the cells
    this.table.addEventListener("pointermove", ({ buttons, clientX, clientY }) => {
      const at = buttons === 1 && document.elementFromPoint(clientX, clientY)?.closest("button");
      if (at && this.table.contains(at) && at !== this.at()) at.click();
    });
    this.table.addEventListener("keydown", (event) => {
      if (!STEP[event.key]) return;
      const [i, j] = this.place.map((p, k) => p + STEP[event.key][k]);
      event.preventDefault();
      const { rows, columns } = this.kind;
      this.choose(clamp(i, 0, rows.length - 1), clamp(j, 0, columns.length - 1));
      this.at().focus();
    });
  }

  at() { return this.table.querySelector('[aria-pressed="true"]'); }

  choose(i, j) { this.change({ row: this.kind.rows[i], column: this.kind.columns[j] }); }

  change(part) {
    Object.assign(this.state, part);
    const { rows, columns } = this.kind;
    if (!rows.includes(this.state.row)) this.state.row = rows[0];
    if (!columns.includes(this.state.column)) this.state.column = columns.at(-1);
    if (this.drawn !== this.state.kind) this.lay();
    super.change({});
  }

  // The cells of a kind of images.
  lay() {
    const { rows, columns } = this.kind;
    this.drawn = this.state.kind;
    const button = (i, j) => {
      const about = { type: "button", "aria-label": `${rows[i]}, ${columns[j]} training images` };
      return h("td", {}, h("button", { ...about, onclick: () => this.choose(i, j) }, h("canvas")));
    };
    this.table.replaceChildren(
      h("thead", {}, h("tr", {}, h("td"), ...columns.map((n) =>
        h("th", { scope: "col" }, `${n.toLocaleString("en")} images`)))),
      h("tbody", {}, ...rows.map((row, i) => h("tr", {}, h("th", { scope: "row" },
        h("span", { class: "lab-mark", style: `background: ${this.spec.colours[row]}` }), row),
      ...columns.map((_, j) => button(i, j))))));
    const marks = [["●", "a cell, the chosen one large"],
      ["―", "its architecture, from few to many images"], ["┄", "its training"],
      ["+", "images that no network made"]];
    this.plane.nextSibling.replaceChildren(...marks.map((mark) => h("li", {}, mark.join(" "))));
    // of older networks closeness was not measured
    const placed = this.kind.cells.some(({ said }) => said.some((one) => "closeness" in one));
    this.plane.parentElement.hidden = !placed;
  }

  update() {
    const [i, j] = this.place, cell = this.cell([i, j]), look = this.look(cell);
    [...this.table.querySelectorAll("button")].forEach((button, k) => {
      const here = k === i * this.kind.columns.length + j;
      button.setAttribute("aria-pressed", here);
      button.tabIndex = here ? 0 : -1;
    });
    const { live } = this.spec, opens = this.state.kind === live.kind;
    this.open.hidden = !(this.inner && opens && live.rows.includes(this.state.row));
    this.status.textContent = this.refused + this.words(cell.said[look]);
    this.refused = "";
    this.detail.textContent = this.kind.training.length
      ? "Under each sample the training image nearest to it. Press one to hear how near." : "";
    this.draw();
    this.writeLink();
  }

  words({ images, copies, closeness, kid, kid_error: error, grain, lost }) {
    const { row, column, kind } = this.state, of = `of ${this.spec.judged} samples`;
    const told = [`${row}, ${column.toLocaleString("en")} ${kind} to learn from,`];
    told.push(images ? `after ${images.toLocaleString("en")} images seen:` : "in closed form:");
    const facts = copies === undefined ? [] : [`${inPercent(copies)} ${of} are copies`];
    if (closeness !== undefined) {
      facts.push(`closeness ${closeness.toFixed(2)} (0 is a copy, 1 new)`);
    }
    if (kid !== undefined) {
      facts.push(`KID ${kid.toFixed(2)}${error ? ` ± ${error.toFixed(2)}` : ""} (0 is real)`);
    }
    if (grain !== undefined) {
      facts.push(`fine detail ${grain.toFixed(1)} times as strong as in real images`);
    }
    if (lost) facts.push(`${inPercent(lost)} diverged`);
    return `${told.join(" ")} ${facts.join("; ")}.`;
  }

  // Pictures

  picture(name) {
    if (!this.pictures.has(name)) {
      const { files, version } = this.spec, path = `labs/${this.spec.name}/${name}?v=${version}`;
      const image = Object.assign(new Image(), { src: files?.[name] ?? inside(path).href });
      const forget = () => {
        this.pictures.delete(name); // the next choice tries again
        this.status.textContent = `The picture ${name} did not load.`;
        return new Image(1, 1);
      };
      this.pictures.set(name, image.decode().then(() => image, forget));
    }
    return this.pictures.get(name);
  }

  // A tile of a picture on a canvas, at a place in tiles.
  tile(canvas, image, from, to, side) {
    const [x, y, toX, toY] = [...from, ...to].map((at) => at * side);
    canvas.getContext("2d").drawImage(image, x, y, side, side, toX, toY, side, side);
  }

  async draw() {
    if (!this.table.clientWidth) return;
    const turn = (this.turn = (this.turn ?? 0) + 1), { side, columns, rows } = this.kind;
    const { kind } = this.state, there = range(rows.length * columns.length);
    this.drawPlane();
    const sheets = await Promise.all(there.map((k) =>
      this.picture(`${kind}-${Math.floor(k / columns.length)}-${k % columns.length}.webp`)));
    const known = this.kind.training.length ? await this.picture(`${kind}.webp`) : null;
    if (turn !== this.turn) return; // the reader has gone on
    [...this.table.querySelectorAll("canvas")].forEach((canvas, k) => {
      Object.assign(canvas, { width: THUMBS * side, height: side });
      const look = this.look(this.kind.cells[k]);
      for (const s of range(THUMBS)) this.tile(canvas, sheets[k], [s, look], [s, 0], side);
    });
    const [i, j] = this.place, cell = this.cell([i, j]), look = this.look(cell);
    this.samples.replaceChildren(...range(IN_ROW).map((s) => {
      const canvas = h("canvas", { width: side, height: (known ? 2 : 1) * side });
      this.tile(canvas, sheets[i * columns.length + j], [s, look], [0, 0], side);
      if (!known) return canvas;
      const at = cell.near[look][s], { across } = this.spec;
      this.tile(canvas, known, [at % across, Math.floor(at / across)], [0, 1], side);
      const about = { type: "button", "aria-label": `How near is sample ${s + 1}?` };
      return h("button", { ...about, onclick: () => this.tell(cell, look, s) }, canvas);
    }));
  }

  tell(cell, look, s) {
    const ratio = cell.ratio[look][s] / 100, number = this.kind.training[cell.near[look][s]] + 1;
    this.detail.textContent = `Sample ${s + 1}: the nearest training image is number ${number}, ` +
      `${ratio.toFixed(2)} times as far as the nearest of as many that it was not trained on.`;
  }

  drawPlane() {
    const { rows, columns, known } = this.kind, [i, j] = this.place, { colours } = this.spec;
    const text = (x, y, words, anchor = "middle") =>
      svg("text", { x, y, "text-anchor": anchor }, words);
    const line = (points, about) => svg("polyline", { points: points.join(" "), ...about });
    const last = (r, c) => { const cell = this.cell([r, c]); return cell.said[this.look(cell)]; };
    const there = (said) => said.closeness !== undefined && said.kid !== undefined;
    const marks = rows.flatMap((row, r) => columns.map((n, c) => [last(r, c), r, c]))
      .filter(([said]) => there(said)).map(([said, r, c]) => {
        const [cx, cy] = spot(said), here = r === i && c === j;
        const dot = { cx, cy, r: here ? 7 : 3.5, fill: colours[rows[r]] };
        return svg("circle", { ...dot, class: here ? "atlas-here" : "" },
          svg("title", {}, `${rows[r]}, ${columns[c]} images`));
      });
    const along = columns.map((_, c) => last(i, c)).filter(there).map(spot);
    const through = this.cell([i, j]).said.filter(there).map(spot);
    const [x0, y0] = [LEFT, HIGH - BOTTOM], stroke = colours[rows[i]];
    const ticks = [0.01, 0.1, 1, 10, 100].map((kid) =>
      text(LEFT - 4, spot({ closeness: 0, kid })[1] + 3, kid, "end"));
    const crosses = Object.entries(known).flatMap(([name, said]) => {
      const [x, y] = spot(said), end = x > WIDE / 2;
      return [svg("path", { d: `M${x - 4},${y}h8M${x},${y - 4}v8` }),
        text(x + (end ? -6 : 6), y - 4, name, end ? "end" : "start")];
    });
    this.plane.setAttribute("aria-label", "Plane of closeness to the training images, " +
      `0 for copies, and KID, 0 for real images. ${this.status.textContent}`);
    this.plane.replaceChildren(
      line([[x0, ROOF], [x0, y0], [WIDE, y0]], { class: "atlas-axes" }), ...ticks,
      text(LEFT, y0 + 14, "0"), text(spot({ closeness: 1, kid: 1 })[0], y0 + 14, "1"),
      text((LEFT + WIDE) / 2, HIGH - 4, "closeness: copies … as far as unseen images"),
      text(LEFT + 4, ROOF + 8, "KID, below is more real", "start"), ...crosses,
      line(along, { class: "atlas-row", stroke }),
      line(through, { class: "atlas-time", stroke }), ...marks);
  }

  // Links and the lab

  query() {
    const { name, start } = this.spec, keys = Object.keys(start);
    const changed = keys.filter((key) => this.state[key] !== start[key]);
    const parts = (changed.length ? keys : []).map((key) => [key, this.state[key]]);
    return parts.length ? `?${new URLSearchParams([["lab", name], ...parts])}` : "";
  }

  read(search) {
    const asked = new URLSearchParams(search), { start, kinds } = this.spec;
    if (asked.get("lab") !== this.spec.name) return;
    const map = kinds[asked.get("kind") ?? start.kind] ?? {};
    const known = { kind: Object.keys(kinds), row: map.rows ?? [], column: map.columns ?? [],
      look: range(Math.max(...(map.cells ?? []).map(({ said }) => said.length), 1)) };
    this.refused = "";
    for (const [key, values] of Object.entries(known).filter(([k]) => asked.has(k))) {
      const found = values.find((value) => String(value) === asked.get(key));
      if (found !== undefined) this.state[key] = found;
      else this.refused += `This map does not have ${key} ${asked.get(key)}. `;
    }
  }

  go(search) {
    Object.assign(this.state, structuredClone(this.spec.start));
    this.read(search);
    this.change({});
  }

  // The chosen cell on the left of the lab, and on the right the one that was there before.
  opened() {
    const { live: { lab } } = this.spec, { row, column } = this.state;
    const side = `${row}~${column}~reverse SDE`;
    const asked = new URLSearchParams([["lab", lab], ["left", side]]);
    if (this.before && this.before !== side) asked.set("right", this.before);
    this.before = side;
    this.inner.hidden = false;
    this.inner.firstElementChild.panel.go(`?${asked}`);
    this.inner.scrollIntoView({ block: "nearest" });
  }
}
