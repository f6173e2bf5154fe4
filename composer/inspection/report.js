"use strict";
// Names are text nodes only: nothing in a dataset is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("controls");
const sheet = document.getElementById("sheet");
const status = document.getElementById("status");
const dialog = document.getElementById("one");
const VIEWS = ["composite", "trimap", "alpha", "cutout"];
let visible = [];
let open = 0;

const ORDERS = {
  worst: (a, b) => (b.why.length > 0) - (a.why.length > 0) || a.number - b.number,
  largest: (a, b) => b.unknown - a.unknown,
  smallest: (a, b) => a.unknown - b.unknown,
  enlarged: (a, b) => b.scale - a.scale,
  foreground: (a, b) => a.index - b.index,
};

function source(cell, view) {
  const shared = data.foregrounds[cell.group];
  const picture = { composite: cell.composite, trimap: cell.trimap, alpha: shared.alpha, cutout: shared.cutout }[view];
  return "data:image/webp;base64," + picture;
}

function picture(cell, view) {
  const img = document.createElement("img");
  img.decoding = "async";
  show(img, cell, view);
  return img;
}

function show(img, cell, view) {
  img.src = source(cell, view);
  img.alt = view;
  img.className = view;
}

function line(text, name) {
  const span = document.createElement("span");
  span.textContent = text;
  if (name) span.className = name;
  return span;
}

const items = data.cells.map((cell, number) => {
  cell.number = number;
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.append(picture(cell, VIEWS[0]), line(cell.key));
  if (cell.why.length) button.append(line(cell.why.join(", "), "why"));
  button.addEventListener("click", () => openCell(visible.indexOf(cell)));
  item.append(button);
  return item;
});

function arrange() {
  const wanted = form.elements.filter.value.trim().toLowerCase();
  visible = data.cells.filter((cell) => cell.foreground.toLowerCase().includes(wanted));
  visible.sort(ORDERS[form.elements.order.value]);
  sheet.replaceChildren(...visible.map((cell) => items[cell.number]));
  status.textContent = `${visible.length} of ${data.cells.length} composites shown; the dataset has ${data.composites}`;
}

function switchView() {
  const view = form.elements.view.value;
  data.cells.forEach((cell, number) => show(items[number].querySelector("img"), cell, view));
}

function openCell(place) {
  open = (place + visible.length) % visible.length;
  const cell = visible[open];
  document.getElementById("key").textContent = cell.key;
  document.getElementById("views").replaceChildren(...VIEWS.map((view) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = view === "cutout" ? "cut-out" : view;
    figure.append(picture(cell, view), caption);
    return figure;
  }));
  const facts = document.getElementById("facts");
  facts.replaceChildren();
  for (const [name, value] of cell.facts) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    facts.append(term, text);
  }
  if (!dialog.open) dialog.showModal();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => (event.target.name === "view" ? switchView() : arrange()));
document.getElementById("previous").addEventListener("click", () => openCell(open - 1));
document.getElementById("next").addEventListener("click", () => openCell(open + 1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => visible.length && items[visible[open].number].querySelector("button").focus());
document.addEventListener("keydown", (event) => {
  if (dialog.open) {
    if (event.key === "ArrowLeft") openCell(open - 1);
    if (event.key === "ArrowRight") openCell(open + 1);
  } else if (event.target.type !== "search" && !event.ctrlKey && !event.metaKey && VIEWS[event.key - 1]) {
    form.elements.view.value = VIEWS[event.key - 1];
    switchView();
  }
});
if (data.cells.length) arrange();
