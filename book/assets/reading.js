// What helps to read a page: code that is folded, contents that follow the scroll, words that are
// explained.
{
  // Kept in this browser; for this page only where that is blocked.
  const memory = (() => {
    try {
      return localStorage;
    } catch {
      return {};
    }
  })();

  // Folded code -----------------------------------------------------------------------------------
  const folds = [...document.querySelectorAll("details.fold")];
  const openAll = (open) => folds.forEach((fold) => (fold.open = open));

  function wire(button) {
    const set = (on) => {
      button.setAttribute("aria-pressed", String(on));
      openAll(on);
    };
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      set(on);
      memory.showCode = on;
    });
    set(memory.showCode === "true");
  }
  document.querySelectorAll(".show-code").forEach(wire);

  // A link to a place within a fold opens it; on paper all are open.
  const reveal = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = place?.closest("details.fold:not([open])");
    if (fold) {
      fold.open = true;
      place.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter((fold) => !fold.open);
    openAll(true);
  });
  addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));

  // Contents --------------------------------------------------------------------------------------
  // The section whose heading was the last to pass the upper third of the window.
  const entries = [...document.querySelectorAll("#page-contents a[href^='#']")].flatMap((link) => {
    const place = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    return place ? [{ link, place: place.querySelector("h1, h2, h3, h4, h5, h6") ?? place }] : [];
  });
  let current;
  function follow() {
    const above = ({ place }) => place.getBoundingClientRect().top < innerHeight / 3;
    const passed = entries.filter(above);
    const bottom = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
    const link = (bottom && scrollY > 0 ? entries : passed).at(-1)?.link;
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link?.setAttribute("aria-current", "true");
    current = link;
    const side = link?.closest(".bd-sidebar-secondary");
    const { top, bottom: end } = link?.getBoundingClientRect() ?? {};
    if (side && (top < 0 || end > innerHeight)) side.scrollTop += top - innerHeight / 2;
  }
  let asked = false;
  const soon = () => {
    if (!asked) requestAnimationFrame(() => (follow(), (asked = false)));
    asked = true;
  };
  if (entries.length) {
    for (const type of ["scroll", "resize", "load"]) {
      addEventListener(type, soon, { passive: true });
    }
    soon();
  }

  // On a phone the contents are a drawer, which is in the way once a section has been chosen.
  for (const drawer of document.querySelectorAll("dialog[id$='sidebar-modal']")) {
    drawer.addEventListener("click", (event) => {
      if (event.target.closest("a[href]")) drawer.close();
    });
  }

  // Words -----------------------------------------------------------------------------------------
  // Styles alone show a meaning. Escape takes it away, and a finger, which cannot hover, sees it
  // before it follows the link.
  const hush = (term) => term.classList.add("hushed");
  const speak = ({ target }) => target.classList.remove("hushed");
  for (const term of document.querySelectorAll("a.term")) {
    for (const type of ["mouseenter", "focus", "blur"]) term.addEventListener(type, speak);
    let seen = false;
    term.addEventListener("blur", () => (seen = false));
    term.addEventListener("click", (event) => {
      if (seen || matchMedia("(hover: hover)").matches) return;
      event.preventDefault();
      term.focus();
      seen = true;
    });
  }
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = "a.term:is(:hover, :focus), a.term:has(+ .meaning:hover)";
    document.querySelectorAll(open).forEach(hush);
  });
}
