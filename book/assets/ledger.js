// Tables of claims: on a phone each row is a card, and in the ledger rows are chosen by chapter,
// source and verdict. Without this script the tables stand whole.
{
  const narrow = matchMedia("(max-width: 600px)");
  const step = () => (narrow.matches ? 20 : 50); // rows shown at a time

  for (const table of document.querySelectorAll("table.ledger")) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows];
    if (!names.includes("claim") && !names.includes("shows")) continue;
    table.classList.add("cards");
    for (const { cells } of rows) [...cells].forEach((cell, i) => (cell.dataset.name = names[i]));
    if (names[0] === "row") addFilters(table, rows, names);
  }

  // The title of a chapter by its number, as the list of chapters has it.
  function titles() {
    const links = document.querySelectorAll("#pst-primary-sidebar nav a[href]");
    const found = [...links].map((link) => link.textContent.trim().match(/^(\d+)\.\s.*/));
    return new Map(found.filter(Boolean).map(([title, number]) => [number, title]));
  }

  function addFilters(table, rows, names) {
    const text = (row, name) => row.cells[names.indexOf(name)].textContent;
    const named = titles();
    const kinds = {
      chapter: (row) => text(row, "row").split(".")[0],
      source: (row) => text(row, "source").split(",")[0],
      verdict: (row) => text(row, "verdict").split(":")[0],
    };
    const asked = new URLSearchParams(location.search);
    const form = document.createElement("form");
    form.className = "ledger-filters";
    const choices = {}, unknown = [];
    for (const [name, of] of Object.entries(kinds)) {
      const select = document.createElement("select");
      select.add(new Option(`every ${name}`, ""));
      for (const value of new Set(rows.map(of))) {
        select.add(new Option(named.get(value)?.slice(0, 60) ?? value, value));
      }
      select.value = asked.get(name) ?? "";
      if (select.selectedIndex < 0) {
        unknown.push(`There is no ${name} ${asked.get(name)}. `);
        select.value = "";
      }
      const label = document.createElement("label");
      label.append(`${name} `, select);
      form.append(label);
      choices[name] = select;
    }
    const count = document.createElement("output");
    form.append(count);
    const more = document.createElement("button");
    more.type = "button";
    let limit = step();

    function show() {
      const chosen = rows.filter((row) =>
        Object.entries(kinds).every(([name, of]) => {
          const { value } = choices[name];
          return !value || of(row) === value;
        }),
      );
      const shown = new Set(chosen.slice(0, limit));
      for (const row of rows) row.hidden = !shown.has(row);
      count.textContent = `${unknown.splice(0).join("")}${chosen.length} of ${rows.length} claims`;
      more.hidden = shown.size === chosen.length;
      more.textContent = `${Math.min(step(), chosen.length - shown.size)} more`;
    }
    const again = () => {
      limit = step();
      show();
    };
    form.addEventListener("input", again);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      limit += step();
      show();
    });
    narrow.addEventListener("change", again);
    addEventListener("beforeprint", () => rows.forEach((row) => (row.hidden = false)));
    addEventListener("afterprint", show);
    table.before(form);
    table.after(more);
    show();
  }
}
