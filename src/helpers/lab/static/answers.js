// Who answers the questions of a lab: the page's worker, or a kernel.

import { Files } from "./files.js";
import { Trainings } from "./trainings.js";

class Answers {
  open = new Map();
  last = 0;

  ask(question, working = () => {}) {
    return new Promise((resolve, reject) => {
      this.open.set(++this.last, { resolve, reject, working });
      this.send({ id: this.last, ...question });
    });
  }

  receive({ id, working, frame, error, ...answer }) {
    const asked = this.open.get(id);
    if (!asked) return;
    if (working !== undefined) return asked.working(working, frame);
    this.open.delete(id);
    if (error) asked.reject(new Error(error));
    else asked.resolve(answer);
  }

  fail(message) {
    for (const { reject } of this.open.values()) reject(new Error(message));
    this.open.clear();
  }
}

// One worker for all labs of a page, so that the runtime is loaded once. It runs this very file.
export class Page extends Answers {
  send(question) {
    this.worker ??= this.start();
    this.worker.postMessage(question);
  }

  start() {
    const worker = new Worker(import.meta.url, { type: "module" });
    worker.onmessage = ({ data }) => this.receive(data);
    worker.onerror = (event) => {
      const why = event.message ? `: ${event.message}` : "";
      event.preventDefault();
      this.worker = null;
      this.fail(`the worker did not start${why}; is the page opened from a server?`);
    };
    return worker;
  }
}

const { DedicatedWorkerGlobalScope } = globalThis;
if (DedicatedWorkerGlobalScope && globalThis instanceof DedicatedWorkerGlobalScope) {
  const labs = new Map();
  globalThis.onmessage = async ({ data: { id, ask, spec, ...question } }) => {
    const Lab = spec.levels ? Trainings : Files;
    if (!labs.has(spec.name)) labs.set(spec.name, new Lab(spec));
    try {
      // of images, which take long, each step is shown as it comes
      const shown = (y) => (spec.image ? Float32Array.from(y) : undefined);
      const seen = (step, y) => postMessage({ id, working: step, frame: y && shown(y) });
      postMessage({ id, ...(await labs.get(spec.name)[ask](question, seen)) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  };
}

const GONE = "The kernel that built these denoisers is gone. Run this cell again.";
const SILENT = "No answer from the kernel yet: it is busy, or it is gone";
const ARRAYS = { float32: Float32Array, uint8: Uint8Array };

export class Kernel extends Answers {
  constructor(model) {
    super();
    this.model = model;
    model.on("comm_live_update", () => this.fail(GONE));
    model.on("msg:custom", ({ arrays = [], ...answer }, buffers) => {
      arrays.forEach(([name, type], i) => {
        const { buffer, byteOffset, byteLength } = buffers[i];
        answer[name] = new ARRAYS[type](buffer.slice(byteOffset, byteOffset + byteLength));
      });
      this.receive(answer);
    });
  }

  ask(question, working = () => {}) {
    const timer = setTimeout(() => working(SILENT), 10_000);
    const seen = (step) => { clearTimeout(timer); working(step); };
    return super.ask(question, seen).finally(() => clearTimeout(timer));
  }

  send({ spec, ...question }) {
    try { this.model.send(question); } catch { this.fail(GONE); }
  }
}
