// Which chapters the reader has begun and finished, as marks in the list of chapters. It is kept in
// this browser, and a button there forgets it.
{
  const memory = (() => {
    try {
      return localStorage;
    } catch {
      return {};
    }
  })();
  const kept = () => JSON.parse(memory.chaptersRead ?? "{}");
  const keep = (read) => (memory.chaptersRead = JSON.stringify(read));
  const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href).href;
  const page = (address) => address.split(/[?#]/)[0].replace(root, "");
  const chapter = (address) => /\/\d\d_[^/]*\.html$/.test(page(address));
  const list = document.querySelector("#pst-primary-sidebar nav");
  const links = [...(list?.querySelectorAll("a[href]") ?? [])].filter((link) => chapter(link.href));
  const SIGNS = { begun: "◐", finished: "✓" };

  const line = document.createElement("p");
  line.className = "progress-line";
  const words = document.createElement("span");
  const forget = document.createElement("button");
  forget.type = "button";
  forget.textContent = "Forget";
  forget.addEventListener("click", () => {
    keep({});
    show();
  });
  line.append(words, " ", forget);

  function show() {
    const read = kept();
    let finished = 0;
    for (const link of links) {
      link.querySelector(".progress-mark")?.remove();
      const state = read[page(link.href)];
      if (!(state in SIGNS)) continue;
      finished += state === "finished";
      const mark = document.createElement("span");
      mark.className = "progress-mark";
      mark.title = state;
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", state);
      mark.textContent = SIGNS[state];
      link.append(" ", mark);
    }
    words.textContent = `${finished} of ${links.length} chapters finished`;
    line.hidden = !links.some((link) => link.querySelector(".progress-mark"));
  }

  function note(state) {
    const read = kept();
    const here = page(location.href);
    if (read[here] === state || read[here] === "finished") return;
    keep({ ...read, [here]: state });
    show();
  }

  if (links.length) {
    list.append(line);
    show();
  }
  const end = document.querySelector("footer.prev-next-footer");
  if (chapter(location.href) && end) {
    const begun = () => {
      if (scrollY < innerHeight) return;
      removeEventListener("scroll", begun);
      note("begun");
    };
    addEventListener("scroll", begun, { passive: true });
    new IntersectionObserver(([{ isIntersecting }]) => {
      if (isIntersecting && scrollY >= innerHeight) note("finished");
    }).observe(end);
  }
}
