// The stage, under a chapter's question: at hand in one press while the reader reads on, set by
// links in the text, and as large as the window for a lecture.
const stage = document.getElementById("stage");
if (stage) begin(stage, stage.firstElementChild);

function begin(place, sheet) {
  const lab = sheet.querySelector("[id^='lab-']"), name = lab?.id.slice("lab-".length);
  const button = (text, about, act) => {
    const made = Object.assign(document.createElement("button"), { type: "button", ...about });
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };
  const way = button("▲ Stage", { className: "stage-way", hidden: true }, () => show("docked"));
  const large = button("Projector", { title: "Key p" }, () => show("projected"));
  const close = button("✕ Close", { title: "Escape", hidden: true }, () => show(""));
  const bar = document.createElement("div");
  bar.className = "stage-bar";
  bar.append(large, close);
  sheet.prepend(bar);
  place.after(way);

  // Where it stands: "" under the question, "docked" over the text, "projected" over all.
  let mode = "", from = null;
  function show(next) {
    const asked = next === mode ? "" : next;
    if (!mode) {
      from = document.activeElement;
      place.style.minHeight = `${place.offsetHeight}px`; // the text stays where it is
    }
    sheet.classList.remove("stage-docked", "stage-projected");
    if (asked) sheet.classList.add(`stage-${asked}`);
    else place.style.minHeight = "";
    mode = asked;
    alone(mode === "projected");
    large.hidden = mode === "projected";
    close.hidden = !mode;
    tell();
    if (mode) close.focus({ preventScroll: true });
    else from?.focus({ preventScroll: true });
    dispatchEvent(new Event("resize")); // Plotly and canvases take their new size
  }

  // What lies under the projector cannot be reached by keyboard or screen reader.
  function alone(on) {
    for (let e = sheet; e !== document.body; e = e.parentElement) {
      for (const other of e.parentElement.children) if (other !== e) other.inert = on;
    }
  }

  let visible = true;
  const tell = () => { way.hidden = visible || mode !== ""; };
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    tell();
  }).observe(place);

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (event.key === "Escape" && mode) show("");
    else if (event.key !== "p" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    else show("projected");
    event.preventDefault();
  });

  // A link to a state of this lab sets the stage, and the reader stays at the sentence.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]"), plain = !event.ctrlKey && !event.metaKey;
    if (!link || !plain || !lab?.panel?.go) return;
    const { pathname, search } = new URL(link.href);
    const here = pathname === location.pathname && new URLSearchParams(search).get("lab") === name;
    if (!here) return;
    event.preventDefault();
    history.replaceState({ stage: name }, "");
    history.pushState({ stage: name }, "", search); // which the lab keeps up to date
    lab.panel.go(search);
    if (visible || mode) return;
    show("docked");
    from = link;
  });

  // Back takes the stage to what it showed before the link; a step between headings leaves it.
  addEventListener("popstate", ({ state }) => {
    const { search } = location, of = new URLSearchParams(search).get("lab") ?? name;
    if (lab && state?.stage === name && of === name && search !== lab.panel.query()) {
      lab.panel.go(search);
    }
  });
}
