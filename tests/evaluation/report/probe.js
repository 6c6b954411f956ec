// Stands at the end of a copy of the report: clicks, types, and writes what it saw into the page.
const found = {errors: []};
addEventListener("error", (event) => found.errors.push(String(event.message)));
const one = (query) => document.querySelector(query);
const names = (body) => [...body.rows].slice(1).map((row) => row.cells[0].querySelector("button")?.textContent ?? "");
const body = document.querySelectorAll("#table tbody")[1];
const visible = () => [...document.querySelectorAll("tbody tr:not(.section)")].filter((row) => row.checkVisibility()).length;
const head = [...document.querySelectorAll("#table thead th")].find((cell) => cell.dataset.title === "ours");
const values = () => [...body.rows].slice(1).map((row) => Number(row.cells[head.cellIndex].dataset.sort));
const key = (name, element) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
try {
  found.title = document.title;
  found.original = names(body);
  found.sections = [...document.querySelectorAll("tr.section")].map((row) => row.textContent);
  for (const state of ["first", "second", "third"]) {
    head.querySelector("button").click();
    found[state] = {sort: head.getAttribute("aria-sort"), values: values(), names: names(body),
                    said: one("#said").textContent};
  }
  found.sections_after = [...document.querySelectorAll("tr.section")].map((row) => row.textContent);
  found.rows = visible();
  const filter = one("#filter");
  const type = (text) => { filter.value = text; filter.dispatchEvent(new Event("input")); };
  type("context WORSE");
  found.filtered = {rows: visible(), count: one("#count").textContent, names: [...document.querySelectorAll("tr[data-row]")]
    .filter((row) => row.checkVisibility()).map((row) => row.cells[0].textContent)};
  type("");
  found.unfiltered = visible();
  one("tr[data-row='OPENED'] td.gain").click();
  found.dialog = {open: one("dialog").open, text: one("dialog").textContent};
  one("#close").click();
  found.closed = !one("dialog").open;
  one("tr[data-row='1'] button.row").click();
  found.hostile = {text: one("dialog h2").textContent, images: document.querySelectorAll("dialog img, dialog script").length};
  one("#close").click();
  const button = one("tr[data-row='0'] button.row");
  button.focus();
  key("ArrowRight", button);
  key("ArrowDown", document.activeElement);
  found.walked = [document.activeElement.parentElement.dataset.row, document.activeElement.dataset.key];
  key("Enter", document.activeElement);
  found.entered = one("dialog").open;
  one("#close").click();
  const group = one("button[data-group='gain']");
  group.click();
  found.hidden = {pressed: group.getAttribute("aria-pressed"), shown: one("td.verdict").checkVisibility()};
  const paper = () => getComputedStyle(document.body).backgroundColor;
  const themes = {};
  for (let i = 0; i < 3; i++) { one("#theme").click(); themes[document.documentElement.dataset.theme ?? "auto"] = paper(); }
  found.themes = themes;
  found.overflow = document.documentElement.scrollWidth > innerWidth;
  found.broken = [...document.images].filter((image) => !image.naturalWidth).length;
} catch (error) { found.errors.push(String(error)); }
const result = document.createElement("pre");
result.id = "found";
result.textContent = JSON.stringify(found);
document.body.append(result);
