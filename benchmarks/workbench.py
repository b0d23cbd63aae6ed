"""A walk through the workbench in a browser: `python benchmarks/workbench.py [minutes]`.

A thousand clothes, the network that it begins with, and its training from the first step to
eigenvectors, copies and its place in the plane, as a reader would press. Leaves a picture of each
state in build/screenshots/workbench-*.png, and prints how long each step took and for how long a
pause went unheard.
"""

import asyncio
import base64
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from playwright.sync_api import sync_playwright

from helpers.lab import Workbench
from helpers.lab.bench_widget import BenchWidget

SHOTS = Path(__file__).resolve().parents[1] / "build/screenshots"
FRONT = """async ([text, css]) => {
  const style = document.createElement("style");
  style.textContent = css;
  document.head.append(style);
  const { default: front } = await import(
    URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const hear = [], view = (base64) =>
    new DataView(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
  const model = { get: () => null, send: (question) => { post(question); } };
  model.on = (event, call) => event === "msg:custom" && hear.push(call);
  setInterval(async () => {
    for (const [content, buffers] of await drain()) {
      for (const call of hear) call(content, buffers.map(view));
    }
  }, 100);
  front.render({ model, el: document.body });
}"""
PAGE = (
    "<!doctype html><html lang=en><style>:root { color-scheme: light dark }"
    "body { font: 15px sans-serif; margin: 1em }</style><body></body></html>"
)


class Beside(BenchWidget):
    """A widget whose kernel is a thread: what it sends waits until the page asks for it."""

    def __init__(self, work: Workbench):
        self.sent: list = []
        super().__init__(work)
        self.asks["train"] = self._start

    def send(self, content, buffers=None):
        self.sent.append([content, [base64.b64encode(b).decode() for b in buffers or []]])

    def drain(self) -> list:
        told, self.sent = self.sent, []
        return told

    def _start(self, question: dict) -> tuple[dict, dict]:
        self.wanted = True
        threading.Thread(target=lambda: asyncio.run(self.train()), daemon=True).start()
        return {}, {}


def main(minutes: float) -> None:
    torch.set_num_threads(1)
    SHOTS.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()

    def told(name: str) -> None:
        tab.screenshot(path=SHOTS / f"workbench-{name}.png", full_page=True)
        print(f"{time.perf_counter() - begun:6.1f} s  {name}", flush=True)

    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        widget = Beside(Workbench("fashion-mnist", minutes=minutes, folder=folder, device="cpu"))
        found = os.environ.get("CHROMIUM") or shutil.which("chromium")  # or playwright's own
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.expose_function("post", lambda question: widget._answer(widget, question, []))
        tab.expose_function("drain", widget.drain)
        tab.set_content(PAGE)
        tab.evaluate(FRONT, [widget._esm, widget._css])
        press = lambda name: tab.get_by_role("button", name=name).click()  # noqa: E731
        tab.wait_for_selector(".bench-go")
        told("opened")
        tab.locator(".bench-go").click()
        tab.wait_for_timeout(15_000 * minutes)
        told("trains")
        press("Pause")
        asked = time.perf_counter()
        tab.get_by_text("Paused.").wait_for()
        print(f"a pause is heard after {time.perf_counter() - asked:.2f} s")
        tab.locator(".bench-go").click()
        tab.get_by_text("Trained.").wait_for(timeout=600_000 * minutes)
        told("trained")
        tab.locator(".bench-run canvas").first.click(position={"x": 60, "y": 40})
        tab.wait_for_selector(".bench-vectors canvas", timeout=120_000)
        told("eigenvectors")
        for name in ("Which theory foretells it?", "Place in the plane", "Row for the ledger"):
            press(name)
            tab.get_by_text("Asks the kernel").wait_for(state="hidden", timeout=300_000)
            tab.wait_for_selector(".bench-found", timeout=300_000)
            told(name.split()[0].lower())


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
