"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const table = document.getElementById("table");
  const bodies = [...table.tBodies];
  const dialog = document.getElementById("record");
  const say = (text) => { document.getElementById("said").textContent = text; };

  // Theme: as the system says, light, or dark; remembered where the browser allows it.
  const themes = ["auto", "light", "dark"];
  const themeButton = document.getElementById("theme");
  let theme = "auto";
  const setTheme = (name) => {
    theme = themes.includes(name) ? name : "auto";
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    themeButton.textContent = "Theme: " + theme;
    try { localStorage.setItem("mmjax-theme", theme); } catch { /* a page from disk may not store anything */ }
  };
  let stored = null;
  try { stored = localStorage.getItem("mmjax-theme"); } catch { /* the same */ }
  setTheme(stored);
  themeButton.addEventListener("click", () => setTheme(themes[(themes.indexOf(theme) + 1) % themes.length]));

  // Sorting inside each section; what has no value stays at the end; a third click restores the order of the table.
  const rowsOf = (body) => [...body.rows].filter((row) => !row.classList.contains("section"));
  bodies.forEach((body) => rowsOf(body).forEach((row, place) => { row.dataset.place = place; }));
  const key = (row, column) => row.cells[column].dataset.sort;
  const compare = (column, sign) => (one, other) => {
    const [a, b] = [key(one, column), key(other, column)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined) || one.dataset.place - other.dataset.place;
    const numeric = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
    const order = numeric ? a - b : a.localeCompare(b, "en", { numeric: true, sensitivity: "base" });
    return sign * order || one.dataset.place - other.dataset.place;
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.dataset.first;
      const now = head.getAttribute("aria-sort");
      const last = first === "ascending" ? "descending" : "ascending";
      const next = now === null ? first : now === first ? last : null;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const order = next ? compare(column, next === "ascending" ? 1 : -1) : (a, b) => a.dataset.place - b.dataset.place;
      bodies.forEach((body) => body.append(...rowsOf(body).sort(order)));
      say(next ? "Sorted by " + head.dataset.title + ", " + next + ", in each section." : "In the order of the table.");
    });
  });

  // Filter: every word must stand in the row or in its section's title.
  const filter = document.getElementById("filter");
  const counted = document.getElementById("count");
  const all = bodies.reduce((sum, body) => sum + rowsOf(body).length, 0);
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    bodies.forEach((body) => {
      const title = body.rows[0].textContent.toLowerCase();
      let here = 0;
      rowsOf(body).forEach((row) => {
        const text = title + " " + row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        here += !row.hidden;
      });
      body.hidden = here === 0;
      shown += here;
    });
    counted.textContent = words.length ? shown + " of " + all + " rows" : all + " rows";
  };
  filter.addEventListener("input", applyFilter);
  applyFilter();

  // What stands to the right of the visible part, and which groups are hidden; a click goes there.
  const box = table.parentElement, more = document.getElementById("more");
  const beyond = () => {
    const edge = box.getBoundingClientRect().left + box.clientLeft + box.clientWidth;
    return heads.filter((head) => !head.hidden && head.getBoundingClientRect().right > edge + 1);
  };
  const showMore = () => {
    const names = beyond().map((head) => head.dataset.title);
    const off = groups.filter((button) => button.getAttribute("aria-pressed") === "false").map((button) => button.dataset.group);
    box.parentElement.classList.toggle("cut", names.length > 0);
    const listed = names.slice(0, 4).join(", ") + (names.length > 4 ? ", …" : "");
    const right = names.length ? names.length + (names.length === 1 ? " column" : " columns") + " to the right: " + listed + " →" : "";
    const hidden = off.length ? "hidden: " + off.join(", ") : "";
    more.textContent = [right, hidden].filter(Boolean).join(" · ");
    more.hidden = !more.textContent;
  };
  more.addEventListener("click", () => {
    if (!beyond().length) groups.forEach((button) => showGroup(button, true));
    else box.scrollBy({ left: box.clientWidth - heads[0].offsetWidth - 40 });
    showMore();
  });
  box.addEventListener("scroll", showMore);
  addEventListener("resize", showMore);

  // Groups of columns.
  const groups = [...document.querySelectorAll("button[data-group]")];
  const showGroup = (button, on) => {
    button.setAttribute("aria-pressed", String(on));
    table.querySelectorAll(".g-" + button.dataset.group).forEach((cell) => { cell.hidden = !on; });
  };
  groups.forEach((button) => button.addEventListener("click", () => {
    showGroup(button, button.getAttribute("aria-pressed") === "false");
    showMore();
  }));
  if (matchMedia("(max-width: 40rem)").matches) {
    groups.forEach((button) => showGroup(button, ["result", "gain"].includes(button.dataset.group)));
  }
  showMore();
  addEventListener("beforeprint", () => groups.forEach((button) => table.querySelectorAll(".g-" + button.dataset.group).forEach((cell) => { cell.hidden = false; })));
  addEventListener("afterprint", () => groups.forEach((button) => showGroup(button, button.getAttribute("aria-pressed") === "true")));

  // The record behind a cell. Everything is set as text, never as markup.
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const plain = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
    if (Array.isArray(value)) return value.map((one) => Array.isArray(one) ? "[" + plain(one) + "]" : plain(one)).join(", ");
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  };
  // JSON in which a list of numbers or words stands on one line.
  const pretty = (value, indent) => {
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    if (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object")) return "[" + value.map((one) => JSON.stringify(one)).join(", ") + "]";
    const inner = indent + "  ", list = Array.isArray(value);
    const lines = list ? value.map((one) => inner + pretty(one, inner))
      : Object.entries(value).map(([name, one]) => inner + JSON.stringify(name) + ": " + pretty(one, inner));
    const [left, right] = list ? "[]" : "{}";
    return lines.length ? left + "\n" + lines.join(",\n") + "\n" + indent + right : left + right;
  };
  const grid = (titles, lines, texts) => {
    const box = make("div", null, "wide"), result = make("table"), head = make("tr");
    titles.forEach((title, place) => {
      const cell = make("th", title, texts.includes(place) ? "text" : "");
      cell.scope = "col";
      head.append(cell);
    });
    result.append(make("thead"), make("tbody"));
    result.tHead.append(head);
    lines.forEach((line) => {
      const row = make("tr");
      line.forEach((value, place) => row.append(make("td", plain(value), texts.includes(place) ? "text" : "")));
      result.tBodies[0].append(row);
    });
    box.append(result);
    return box;
  };
  const flat = (value, name) => value !== null && typeof value === "object" && !Array.isArray(value)
    ? Object.entries(value).flatMap(([inner, of]) => flat(of, name ? name + "." + inner : inner)) : [[name, value]];

  const open = (number, columnKey) => {
    const row = data.rows[number], column = data.columns[columnKey], record = Object.hasOwn(data.records, row.name) ? data.records[row.name] : null;
    const body = dialog.querySelector(".body");
    dialog.querySelector("h2").textContent = row.name;
    body.replaceChildren();
    if (column) {
      const shown = table.querySelector('tr[data-row="' + number + '"] td.' + columnKey);
      body.append(make("h3", column.title), make("p", shown.textContent.trim(), "big"), make("p", column.meaning));
      const behind = {};
      column.fields.forEach((field) => { if (row[field] !== undefined && row[field] !== null) behind[field] = row[field]; });
      if (Object.keys(behind).length) body.append(grid(["field of table.json", "value"], flat(behind, ""), [0, 1]));
    }
    if (row.notes) body.append(make("h3", "Note"), make("p", row.notes));
    if (record) {
      const names = record.names, seeds = record.seeds;
      body.append(make("h3", "Each seed"));
      body.append(grid(names, seeds, names.flatMap((name, place) => /path|sha|notes/.test(name) ? [place] : [])));
      body.append(make("h3", "The same for all seeds"));
      body.append(grid(["field", "value"], flat(record.shared, ""), [0, 1]));
    } else {
      body.append(make("p", "There is no record: this row has not run."));
    }
    const more = make("details"), summary = make("summary", "Everything that table.json says of this row");
    more.append(summary, make("pre", pretty(row, "")));
    body.append(make("h3", "table.json"), more);
    dialog.showModal();
    body.scrollTop = dialog.scrollTop = 0;
  };
  const openFrom = (target) => {
    const cell = target.closest("td[tabindex], button.row");
    if (!cell) return false;
    open(Number(cell.closest("tr").dataset.row), cell.dataset.key);
    return true;
  };
  table.addEventListener("click", (event) => openFrom(event.target));
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // Arrow keys walk over the cells; enter or space opens.
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody td, tbody th.name");
    if (!cell) return;
    if ((event.key === "Enter" || event.key === " ") && cell.tagName === "TD") {
      event.preventDefault();
      openFrom(cell);
      return;
    }
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const lines = [...table.querySelectorAll("tbody:not([hidden]) tr[data-row]:not([hidden])")];
    let line = cell.parentElement, place = cell.cellIndex + right;
    if (down) line = lines[lines.indexOf(line) + down];
    while (line && line.cells[place] && line.cells[place].hidden) place += right || -1;
    const next = line && line.cells[place];
    if (next) (next.querySelector("button.row") || next).focus();
  });
})();
