"""Still pictures of the figures that have a slider: what a page shows until Plotly is there, and all
that it shows where scripts do not run."""

import base64
import gzip
import io
import json
import re
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

FIGURE = re.compile(
    r'(<div (?=[^>]*class="plotly-target")[^>]*>)(</div>\s*<script type="application/json">([^<]+)<)'
)
# Pixels: of a column, on a laptop and on a phone; of a square window at most and what is over and
# under it, as in figures.js; of a slider with its numbers; left of an axis with a title.
WIDE, NARROW, SQUARE, LEGEND, SLIDER, TITLED = 760, 360, 480, 130, 90, 62
INK = "#808890"  # read on white and on black


def stilled(html: str, keep: Callable[[bytes], str]) -> str:
    """The page with a still in each of its figures. keep: writes a picture; its address."""

    def add(found: re.Match[str]) -> str:
        figure = json.loads(gzip.decompress(base64.b64decode(found[3])))
        high = f"{height(figure['layout'], WIDE)}px"
        if is_square(figure["layout"]):  # as figures.js will draw it
            high = f"calc(min({SQUARE}px, 100vw - 3rem) + {LEGEND}px)"
        label = re.search(r'aria-label="([^"]*)"', found[1])
        look = f'class="plotly-still" alt="{label[1] if label else ""}" loading="lazy"'
        look += f' style="height: {high}" src="{keep(still(figure))}"'
        phone = f'<source media="(max-width: 599px)" srcset="{keep(still(figure, NARROW))}"/>'
        return f"{found[1]}<picture>{phone}<img {look}/></picture>{found[2]}"

    return FIGURE.sub(add, html)


def still(figure: dict, width: int = WIDE) -> bytes:
    """What Plotly draws of `figure` before its slider is moved, transparent WebP: lines, points, heat
    maps and images. figure: as `helpers.plots.Slider` makes it; width: in pixels."""
    layout, traces = figure["layout"], figure["data"]
    high, margin = height(layout, width), layout["margin"]
    drawn = Figure(figsize=(width / 100, high / 100), dpi=120)
    drawn.set_layout_engine("none")  # the book's style has another
    left = max(margin["l"], TITLED * bool(layout.get("yaxis", {}).get("title")))
    low = margin["b"] + SLIDER
    wide, tall = width - left - margin["r"], high - low - margin["t"]

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + x * wide) / width, (low + y * tall) / high

    for i in sorted({axes_of(trace) for trace in traces}):
        x, y = (layout.get(f"{axis}axis{i}", {}) for axis in "xy")
        (a, b), (c, d) = (axis.get("domain", (0, 1)) for axis in (x, y))
        (x0, y0), (x1, y1) = place(a, c), place(b, d)
        ax = drawn.add_axes((x0, y0, x1 - x0, y1 - y0))
        ax.patch.set_alpha(0)
        for trace in traces:
            if axes_of(trace) == i:
                draw(ax, trace)
        dress(ax, x, y)
    for note in layout.get("annotations", []):
        if note.get("xref") == "paper":
            where = {"ha": note.get("xanchor", "center"), "va": note.get("yanchor", "bottom")}
            drawn.text(*place(note["x"], note["y"]), note["text"], color=INK, size=9, **where)
    legend = layout.get("showlegend", True) and {
        name: handle
        for ax in drawn.axes
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if legend:
        drawn.legend(
            [*legend.values()], [*legend],
            loc="upper left", bbox_to_anchor=(layout["legend"].get("x", 0) * (width == WIDE), 1),
            ncols=4 if width == WIDE else 2, frameon=False, labelcolor=INK, fontsize=9,
        )  # fmt: skip
    webp = io.BytesIO()
    drawn.savefig(webp, format="webp", transparent=True, pil_kwargs={"quality": 75})
    return webp.getvalue()


def axes_of(trace: dict) -> str:
    """What follows `xaxis` in the name of its axis: nothing, 2, 3 ..."""
    return trace.get("xaxis", "x")[1:].removeprefix("1")


def is_square(layout: dict) -> bool:
    return {"range", "scaleanchor"} <= {*layout.get("yaxis", {})}


def height(layout: dict, width: int) -> int:
    return min(SQUARE, width) + LEGEND if is_square(layout) else layout["height"]


def draw(ax: Axes, trace: dict) -> None:
    name = trace.get("name", "") if trace.get("showlegend", True) else ""
    if trace["type"] == "scatter":
        x, y = ([v if v is not None else float("nan") for v in trace[axis]] for axis in "xy")
        if "lines" in trace["mode"]:
            line = trace.get("line", {})
            style = {"dash": "--", "dot": ":"}.get(line.get("dash"), "-")
            ax.plot(
                x, y, style, color=line.get("color"), lw=0.75 * line.get("width", 2), label=name
            )
        else:
            dot = trace["marker"]
            colours = dot.get("color")
            size = (0.75 * dot.get("size", 6)) ** 2
            ax.scatter(x, y, size, colours, alpha=dot.get("opacity", 1), lw=0, label=name)
        return
    if trace["type"] == "image":
        source = Image.open(io.BytesIO(base64.b64decode(trace["source"].split(",", 1)[1])))
        ax.imshow(source, interpolation="nearest")
        return
    if isinstance(trace["colorscale"], str):
        raise ValueError(
            f"colorscale is {trace['colorscale']!r}: give its stops, as in helpers.plots.MAGMA, for "
            "Plotly and the still would draw different ones under one name"
        )
    stops = [(at, plain(colour)) for at, colour in trace["colorscale"]]
    z, lookup = trace["z"], LinearSegmentedColormap.from_list("", stops)
    across, up = trace.get("x") or range(len(z[0])), trace.get("y") or range(len(z))
    mesh = ax.pcolormesh(
        across, up, z, cmap=lookup, vmin=trace.get("zmin"), vmax=trace.get("zmax"), rasterized=True
    )
    if trace.get("showscale", True):
        bar = ax.figure.colorbar(mesh, ax=ax, ticks=trace.get("colorbar", {}).get("tickvals"))
        bar.ax.tick_params(colors=INK, labelsize=9)
        bar.outline.set_visible(False)


def plain(colour: str) -> str:
    """rgb(r, g, b), which matplotlib does not read, as #rrggbb."""
    if not colour.startswith("rgb"):
        return colour
    r, g, b, *_ = (float(v) / 255 for v in re.findall(r"[\d.]+", colour))
    return to_hex((r, g, b))


def dress(ax: Axes, x: dict, y: dict) -> None:
    for name, axis in (("x", x), ("y", y)):
        log = axis.get("type") == "log"
        title = axis.get("title", "")
        told = {f"{name}label": title["text"] if isinstance(title, dict) else title}
        if log:
            told[f"{name}scale"] = "log"
        if "range" in axis:
            told[f"{name}lim"] = [10**v if log else v for v in axis["range"]]
        ax.set(**told)
        if log:
            drawn = getattr(ax, f"{name}axis")
            drawn.set_minor_formatter(NullFormatter())
            low, high = drawn.get_view_interval()
            if high < 100 * low:  # one power of ten says too little
                drawn.set_major_locator(LogLocator(subs=(1, 2, 5)))
                drawn.set_major_formatter("{x:g}")
        if axis.get("visible") is False or axis.get("showticklabels") is False:
            (ax.xaxis if name == "x" else ax.yaxis).set_ticks([])
    if y.get("autorange") == "reversed":
        ax.set_ylim(*sorted(ax.get_ylim(), reverse=True))
    if "scaleanchor" in y:
        ax.set_aspect("equal", adjustable="box")
    bare = x.get("visible") is False or x.get("showticklabels") is False
    for side, spine in ax.spines.items():
        spine.set(visible=not bare and side in ("bottom", "left"), color=INK)
    ax.tick_params(colors=INK, labelsize=9)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, size=9)
