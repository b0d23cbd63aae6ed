"""How long does a lab keep the page from answering, and how fast does it train? `python
benchmarks/lab_freeze.py`, after `make book`.

In each lab of the plane the particles are set to 2000, and five seeds are sampled, drawn and
measured; in the lab that trains, two networks learn for four seconds, five times. The longest gap between two
turns of the main thread's event loop is compared with the longest gap of an idle page as long. Then steps a
second in the browser's worker, without looks, and by torch on one core, in turns. Medians, as JSON.
"""

import json
import os
import shutil
import statistics
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from helpers.lab import Preset, Trainer

LAB = Trainer("train", "", "")
SITE = Path(__file__).resolve().parents[1] / "build/site"
WATCH = """async work => {
  let last = performance.now(), longest = 0, on = true;
  const channel = new MessageChannel();
  channel.port1.onmessage = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (on) setTimeout(() => channel.port2.postMessage(0));
  };
  channel.port2.postMessage(0);
  const start = performance.now();
  await eval(work);
  on = false;
  return [Math.max(longest, performance.now() - last), performance.now() - start];
}"""
RUN = (
    "(panel => { panel.change({ seed: %d, particles: '2000' }); clearTimeout(panel.soon); panel.soon = 0; \
return panel.run() })(document.querySelector('#lab-%s').panel)"
)


TRAIN = """(panel => {
  const draw = panel.drawSide;
  panel.drawn = 0;
  panel.drawSide = function (side) {
    panel.drawn += side === "left";
    return draw.call(panel, side);
  };
  panel.change({ seed: %d });
  panel.start();
  return new Promise((rest) => setTimeout(() => {
    panel.stop();
    panel.drawSide = draw;
    rest();
  }, 4000));
})(document.querySelector("#lab-train").panel)"""
STEPS = """async state => {
  const { panel } = document.querySelector("#lab-train"), side = "left";
  await panel.ask(side, { ask: "begin", state });
  await panel.ask(side, { ask: "train", milliseconds: 200, steps: 100 });
  const { losses, milliseconds } = await panel.ask(side, { ask: "train", milliseconds: 3000, steps: 1e9 });
  return (1000 * losses.length) / milliseconds;
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def main() -> None:
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    executable = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--headless", "--no-sandbox"]
        )
        for page in sorted(SITE.glob("book/**/*.html")):
            tab = browser.new_context(reduced_motion="reduce").new_page()
            tab.goto(f"http://127.0.0.1:{server.server_port}/{page.relative_to(SITE)}")
            labs = tab.evaluate(
                "[...document.querySelectorAll('denoise-lab')].map(e => [e.panel.spec.name, e.panel.spec.image])"
            )
            for name in [name for name, image in labs if not image]:
                tab.evaluate(RUN % (99, name))  # loads the runtime and the denoisers
                gaps, times = zip(
                    *[tab.evaluate(WATCH, RUN % (seed, name)) for seed in range(5)], strict=True
                )
                idle = f"new Promise(r => setTimeout(r, {statistics.median(times)}))"
                idles = [tab.evaluate(WATCH, idle)[0] for _ in range(5)]
                found[name] = {
                    "longest gap, ms": round(statistics.median(gaps), 1),
                    "worst of five, ms": round(max(gaps), 1),
                    "idle page, ms": round(statistics.median(idles), 1),
                    "one run, ms": round(statistics.median(times)),
                }
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/book/train.html")
        tab.evaluate(TRAIN % 99)
        gaps, pictures = [], []
        for seed in range(5):
            gap, taken = tab.evaluate(WATCH, TRAIN % seed)
            drawn = tab.evaluate("document.querySelector('#lab-train').panel.drawn")
            gaps.append(gap)
            pictures.append(1000 * drawn / taken)
        found["train"] = {
            "longest gap, ms": round(statistics.median(gaps), 1),
            "worst of five, ms": round(max(gaps), 1),
            "pictures a second": round(statistics.median(pictures), 1),
        }
        for width in ("4", "16", "64"):
            state = LAB.state(Preset("", "", {"steps": "16000", "left": {"width": width}}))
            browsers, torches = [], []
            for _ in range(3):
                browsers.append(tab.evaluate(STEPS, state))
                training, began = LAB.training(state, "left"), time.perf_counter()
                while time.perf_counter() - began < 3:
                    training.next()
                torches.append(training.step / (time.perf_counter() - began))
            found[f"width {width}, steps a second"] = {
                "browser": round(statistics.median(browsers)),
                "torch, one thread": round(statistics.median(torches)),
            }
        browser.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
