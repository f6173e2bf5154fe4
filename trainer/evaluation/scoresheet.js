const form = document.getElementById("controls");
const list = document.getElementById("cases");
const more = document.getElementById("more");
const reference = document.getElementById("reference"); // none where a single method is graded
const PAGE = 30; // rows that are added at once
const ALL = "mean of all", SPREAD = "largest difference";
let rest = [];

function number(value) {
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size !== 0 && size < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function mean(values) {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

// A case's key for sorting: one method's error, or what all methods' errors make together.
function key(one) {
  const who = form.elements.who.value, error = form.elements.error.value;
  if (who !== ALL && who !== SPREAD) return one.errors[who]?.[error] ?? NaN;
  const found = Object.values(one.errors).map((errors) => errors[error]);
  return who === ALL ? mean(found) : Math.max(...found) - Math.min(...found);
}

function ordered(items, value) {
  const order = form.elements.order.value;
  if (order === "given") return items;
  const sign = order === "worst" ? -1 : 1;
  const keyed = items.map((item) => [value(item), item]);
  const missing = keyed.filter(([found]) => Number.isNaN(found));
  return [...keyed.filter(([found]) => !Number.isNaN(found)).sort(([a], [b]) => sign * (a - b)), ...missing].map(([, item]) => item);
}

function figures(errors) {
  const chosen = Number(form.elements.error.value);
  const all = errors.map((value, i) => `${data.errors[i].title} ${number(value)}`);
  const others = all.filter((_, i) => i !== chosen).flatMap((text) => [make("span", "", text), " "]);
  return [make("b", "", all[chosen]), make("span", "", ...others)];
}

function cell(title, pair, what, ...below) {
  const figure = make("figure", "", make("figcaption", "title", title));
  if (pair) figure.append(picture(pair.whole, `${what}, whole`), picture(pair.detail, `${what}, where the methods err most, 1:1`, "detail"));
  if (below.length) figure.append(make("figcaption", "", ...below));
  return figure;
}

function row(one) {
  const { preview, errors } = one;
  const view = form.elements.view.value, error = form.elements.error.value;
  const least = Math.min(...Object.values(errors).map((found) => found[error]));
  const cells = data.competitors.map((name) => {
    const what = view === "alphas" ? `${name}: alpha` : `${name}: error`;
    const below = errors[name] ? figures(errors[name]) : [make("span", "why", "failed")];
    const made = cell(name, preview?.[view][name], what, ...below);
    if (data.competitors.length > 1 && errors[name]?.[error] === least) made.className = "best";
    return made;
  });
  const facts = [one.foreground === one.name ? "" : one.foreground];
  if (preview) {
    if (preview.trimap) cells.unshift(cell("given trimap", preview.trimap, "given trimap"));
    if (preview.image) cells.unshift(cell("image", preview.image, "image"));
    cells.push(cell("truth", preview.truth, "truth"));
    facts.push(`${preview.width}×${preview.height} px; framed, and below 1:1: ${preview.side} px at ${preview.x}, ${preview.y}`);
  }
  const heading = make("h3", "", one.name, make("span", "", facts.filter(Boolean).join(" · ")));
  return make("section", "case", heading, make("div", "cells", ...cells));
}

// One foreground's composites: the methods' means, and the rows once it is opened.
function group([name, cases]) {
  const error = form.elements.error.value;
  const means = data.competitors.map((who) => {
    const found = cases.filter((one) => one.errors[who]).map((one) => one.errors[who][error]);
    return found.length ? `${who} ${number(mean(found))}` : `${who} –`;
  });
  const summary = make("summary", "", make("b", "", name), make("span", "", ` · ${cases.length} · ${data.errors[error].title} ${means.join(", ")}`));
  const details = make("details", "group", summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...ordered(cases, key).map(row));
  });
  return details;
}

function addMore() {
  list.append(...rest.splice(0, PAGE).map((draw) => draw()));
  more.hidden = !rest.length;
  more.textContent = `Show ${Math.min(PAGE, rest.length)} of ${rest.length} more`;
}

function arrange() {
  const wanted = form.elements.filter.value.trim().toLowerCase();
  const found = data.cases.filter(({ name, foreground }) => `${name}\n${foreground}`.toLowerCase().includes(wanted));
  if (form.elements.grouped?.checked) {
    const groups = new Map();
    for (const one of found) groups.set(one.foreground, [...(groups.get(one.foreground) ?? []), one]);
    const value = ([, cases]) => mean(cases.map(key).filter((found) => !Number.isNaN(found)));
    rest = ordered([...groups], value).map((one) => () => group(one));
  } else rest = ordered(found, key).map((one) => () => row(one));
  const pictured = found.filter((one) => one.preview).length;
  document.getElementById("status").textContent = `${found.length} of ${data.cases.length} pictures`
    + (pictured < found.length ? `; ${pictured} of them, the methods' worst, are shown, the others have figures only` : "");
  list.replaceChildren();
  addMore();
}

// The tables of differences, one for each reference: that of the chosen one is shown.
function compare() {
  document.querySelectorAll("[aria-label^='Differences']").forEach((table, i) => table.hidden = i !== reference.selectedIndex);
}

const whos = data.competitors.length > 1 ? [...data.competitors, ALL, SPREAD] : data.competitors;
form.elements.who.append(...whos.map((name) => make("option", "", name)));
form.elements.who.parentElement.hidden = whos.length < 2;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", arrange);
reference?.addEventListener("input", compare);
if (reference) compare(); // a browser that loads a page again keeps what was chosen
more.addEventListener("click", addMore);
document.addEventListener("keydown", (event) => {
  const view = ["alphas", "errors"][event.key - 1];
  if (!view || event.target.type === "search" || event.ctrlKey || event.metaKey) return;
  form.elements.view.value = view;
  arrange();
});
arrange();
