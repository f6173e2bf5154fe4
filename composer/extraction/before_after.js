const form = document.getElementById("controls");
const url = (webp) => `url("data:image/webp;base64,${webp}")`;

function compare(one, what, title) {
  const before = picture(one[what].before, `${title}: before`, "before");
  const after = picture(one[what].after, `${title}: after`, "after");
  const slider = make("input", "");
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 50, step: "any" });
  slider.setAttribute("aria-label", `${title}: before and after`);
  const stage = make("div", "stage", before, after, make("i", "edge"), slider);
  slider.addEventListener("input", () => stage.style.setProperty("--at", `${slider.value}%`));
  stage.dress = () => {
    const { before: which, behind } = form.elements;
    before.style.maskImage = which.value === "cut" ? url(one[what].after) : "none";
    stage.classList.toggle("checkers", behind.value === "checkers");
    stage.style.backgroundColor = { plain: one.plain, white: "#fff", black: "#000" }[behind.value] ?? "";
    stage.style.backgroundImage = behind.value === "picture" ? url(one[what].before) : "";
  };
  return make("figure", what, stage, make("figcaption", "", title.slice(one.name.length + 2)));
}

function draw(one) {
  const pair = make("div", "pair", compare(one, "whole", `${one.name}, whole`), compare(one, "detail", `${one.name}, ${one.place}`));
  return make("section", "case", make("h3", "", one.name, make("span", "", one.facts.join(" · "))), pair);
}

if (form) {
  document.getElementById("cases").append(...data.cases.map(draw));
  const dress = () => document.querySelectorAll(".stage").forEach((stage) => stage.dress());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", dress);
  dress();
}
