// Filters, sorting, copying, and opening the row that an address names. Without it every row is there to read.
"use strict";
document.documentElement.classList.add("scripted");
const form = document.forms.filter;
const table = document.querySelector("#rows table");
const rows = [...table.tBodies];
const headings = [...table.tHead.rows[0].cells];

function show() {
  const kinds = [...form.elements.kind].filter(box => box.checked).map(box => box.value);
  const { paper, verdict } = form.elements;
  const asked = rows.filter(({ dataset }) =>
    ["", dataset.paper].includes(paper.value) && ["", ...dataset.verdicts.split("|")].includes(verdict.value));
  const shown = asked.filter(row => kinds.includes(row.dataset.kind));
  for (const row of rows) row.hidden = !shown.includes(row);
  const folded = asked.length - shown.length;
  const more = folded ? `; ${folded} more are folded away, of kinds that are not ticked` : "";
  document.getElementById("count").textContent = `${shown.length} of ${rows.length} rows${more}`;
}

function sort(column, descending) {
  const key = row => row.rows[0].cells[column]?.dataset.key;
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  const [some, none] = [rows.filter(key), rows.filter(row => !key(row))]; // rows without a value stay last
  some.sort((a, b) => compare(key(a), key(b)) * (descending ? -1 : 1));
  table.append(...some, ...none);
  headings.forEach((heading, at) =>
    heading.ariaSort = at !== column ? "none" : descending ? "descending" : "ascending");
  form.elements.sort.value = column;
}

function reset() {
  form.reset();
  sort(-1, false);
}

function reveal() {
  const row = rows.find(row => row.id === decodeURIComponent(location.hash.slice(1)));
  if (!row) return;
  if (row.hidden) {
    reset();
    [...form.elements.kind].find(box => box.value === row.dataset.kind).checked = true;
    show();
  }
  row.scrollIntoView({ block: "center" });
}

form.addEventListener("change", event => event.target.name === "sort" ? sort(+event.target.value, false) : show());
headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () =>
  sort(column, heading.ariaSort === "ascending")));
document.addEventListener("click", ({ target }) => {
  if (target.matches(".copy")) {
    const told = word => () => { target.textContent = word; };
    getSelection().selectAllChildren(target.previousElementSibling); // for a browser that refuses the clipboard
    navigator.clipboard?.writeText(target.previousElementSibling.textContent).then(told("copied"), told("selected"));
  } else if (target.matches("a[data-paper]")) {
    reset();
    form.elements.paper.value = target.dataset.paper;
    show();
  }
});
addEventListener("hashchange", reveal);
show();
reveal();
