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

// What composites of one look of a foreground share is stored once; a filter shows the cut-out's alpha.
function source(cell, what, view) {
  return { ...data.foregrounds[cell.group][what], ...cell[what] }[view === "alpha" ? "cutout" : view];
}

const items = data.cells.map((cell, number) => {
  cell.number = number;
  const image = picture(source(cell, "whole", VIEWS[0]), VIEWS[0], VIEWS[0]);
  const [x, y] = cell.shape.map((side) => 50 - (50 * side) / Math.max(...cell.shape)); // % beside the picture, which
  image.style.clipPath = `inset(${y}% ${x}%)`; // a filter or a checkerboard would fill
  const button = make("button", "", image, make("span", "", cell.key));
  button.type = "button";
  if (cell.why.length) button.append(make("span", "why", cell.why.join(", ")));
  button.addEventListener("click", () => openCell(visible.indexOf(cell)));
  return make("li", "", button);
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
  data.cells.forEach((cell, number) => {
    const image = items[number].querySelector("img");
    show(image, source(cell, "whole", view), view);
    image.className = view;
  });
}

function openCell(place) {
  open = (place + visible.length) % visible.length;
  const cell = visible[open];
  document.getElementById("key").textContent = cell.key;
  document.getElementById("views").replaceChildren(...VIEWS.map((view) => {
    const title = view === "cutout" ? "cut-out" : view;
    const whole = picture(source(cell, "whole", view), title, view);
    const detail = picture(source(cell, "detail", view), `${title}, finest detail 1:1`, `detail ${view}`);
    return make("figure", "", make("figcaption", "", title), whole, detail);
  }));
  const facts = cell.facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]);
  document.getElementById("facts").replaceChildren(...facts);
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
