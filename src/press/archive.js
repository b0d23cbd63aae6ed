// Lets the modules of the site run from files, where a page may fetch nothing and start a worker
// of no file: `carry` takes a module as a function, whose text the worker gets, and a fetched file
// is a script that leaves its bytes, in base64, in `carried`.

{
  const read = (url) => new Promise((resolve, reject) => {
    const address = new URL(url), script = document.createElement("script");
    address.search = "";
    script.src = `${address.href}.js`;
    script.onload = () => {
      script.remove();
      resolve(Uint8Array.from(atob(globalThis.carried), (letter) => letter.charCodeAt(0)));
    };
    script.onerror = () => reject(new TypeError(`${decodeURI(script.src)} is not there`));
    document.head.append(script);
  });

  // What a module has in place of fetch and import(): on the page, and in its worker, which asks
  // the page.
  const onPage = async (url) => new Response(await read(url));
  const inWorker = (url) => new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data: [bytes, error] }) => {
      if (error) reject(new TypeError(error));
      else resolve(new Response(bytes));
    };
    postMessage({ wanted: String(url) }, [port2]);
  });
  const importer = (fetch) => async (url) => {
    const text = await (await fetch(url)).text(), type = "text/javascript";
    return import(URL.createObjectURL(new Blob([text], { type })));
  };

  globalThis.carry = (module) => {
    const here = document.currentScript.src;
    class FileWorker extends Worker {
      constructor() {
        const given = [JSON.stringify(here), "fetch", `(${importer})(fetch)`].join(", ");
        const text = `{ const fetch = ${inWorker};\n(${module})(${given}); }`;
        super(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        this.addEventListener("message", async (event) => {
          const { data: { wanted }, ports: [port] } = event;
          if (!wanted) return;
          event.stopImmediatePropagation();
          port.postMessage(await read(wanted).then((bytes) => [bytes], (e) => [null, e.message]));
        });
      }
    }
    module(here, onPage, importer(onPage), FileWorker);
  };
}
