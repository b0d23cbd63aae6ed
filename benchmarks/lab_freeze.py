"""How long does a lab keep the page from answering? `python benchmarks/lab_freeze.py`, after `make
book`.

In each lab of the plane the particles are set to 2000, and five seeds are sampled, drawn and
measured. The longest gap between two turns of the main thread's event loop is compared with the
longest gap of an idle page as long. Medians over the seeds, as JSON.
"""

import json
import os
import shutil
import statistics
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def main() -> None:
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
        browser.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
