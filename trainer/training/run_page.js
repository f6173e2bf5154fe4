const { charts, panels, folder } = data;
const WIDTH = 480, HEIGHT = 200, LEFT = 52, BOTTOM = 20, TOP = 8, RIGHT = 8;
const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

function element(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function short(value) {
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(1) : NUMBER.format(value);
}

// Round steps of 1, 2 or 5 times a power of ten between two numbers; of a logarithmic scale 1, 2 and 5 themselves.
function ticks(low, high, log) {
  let found = [];
  if (log) {
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** e);
  } else {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((digit) => digit * power >= rough) * power;
    for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-9); k++) found.push(k * step);
  }
  found = found.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  return log && found.length < 3 ? ticks(low, high, false) : found;
}

function draw({ title, scale, series, mark }) {
  const all = series.flatMap((one) => one.points);
  const log = scale === "log" && all.every(([, y]) => y > 0);
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1);
  let y0 = log ? Math.min(...ys) / 1.1 : 0, y1 = Math.max(...ys) * 1.05;
  if (!(y1 > y0)) y1 = y0 + 1;
  const place = (value) => (log ? (Math.log(value) - Math.log(y0)) / (Math.log(y1) - Math.log(y0)) : (value - y0) / (y1 - y0));
  const toX = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const toY = (y) => HEIGHT - BOTTOM - place(y) * (HEIGHT - TOP - BOTTOM);

  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0 });
  svg.setAttribute("aria-label", `${title}: ` + series.map(({ name, points }) => `${name} ${short(points.at(-1)[1])}`).join(", "));
  for (const y of ticks(y0, y1, log)) {
    svg.append(element("path", { class: "axis", d: `M${LEFT} ${toY(y)}H${WIDTH - RIGHT}` }));
    svg.append(element("text", { x: LEFT - 6, y: toY(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const x of ticks(x0, x1, false))
    svg.append(element("text", { x: Math.min(toX(x), WIDTH - 20), y: HEIGHT - 4, "text-anchor": "middle" }, x.toLocaleString("en")));
  series.forEach(({ points }, i) => {
    const d = points.map(([x, y], k) => `${k ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("");
    svg.append(element("path", { class: `line s${i % 6}`, d }));
    if (points.length === 1) svg.append(element("circle", { class: `dot s${i % 6}`, cx: toX(points[0][0]), cy: toY(points[0][1]), r: 3 }));
  });
  if (mark) svg.append(element("circle", { class: "mark", cx: toX(mark[0]), cy: toY(mark[1]), r: 5 }, element("title", {}, "best")));

  const figure = make("figure");
  const legend = make("p", "legend");
  const values = series.map(({ name }, i) => {
    const item = make("span");
    const value = make("b");
    item.append(make("i", `swatch s${i % 6}`), `${name} `, value);
    legend.append(item);
    return value;
  });
  const when = make("span");
  legend.prepend(when);
  figure.append(make("figcaption", "", title), svg, legend);

  const steps = [...new Set(xs)].sort((a, b) => a - b);
  const cursor = element("path", { class: "cursor" });
  svg.append(cursor);
  let at = steps.length - 1;
  function show(index, visible) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    when.textContent = `step ${steps[at].toLocaleString("en")}`;
    cursor.setAttribute("d", visible ? `M${toX(steps[at])} ${TOP}V${HEIGHT - BOTTOM}` : "");
    series.forEach(({ points }, i) => {
      const near = points.reduce((a, b) => (Math.abs(b[0] - steps[at]) < Math.abs(a[0] - steps[at]) ? b : a));
      values[i].textContent = short(near[1]);
    });
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = x0 + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (x1 - x0);
    show(steps.reduce((best, step, k) => (Math.abs(step - x) < Math.abs(steps[best] - x) ? k : best), 0), true);
  });
  svg.addEventListener("pointerleave", () => show(steps.length - 1, false));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") show(at + (event.key === "ArrowLeft" ? -1 : 1), true);
  });
  show(at, false);
  return figure;
}

document.getElementById("charts").append(...charts.filter(({ series }) => series.length).map(draw));

const slider = document.getElementById("time");
function look() {
  const name = panels[slider.value];
  document.getElementById("panel").src = document.getElementById("whole").href = `${folder}/${name}`;
  document.getElementById("when").textContent = Number(name.match(/\d+/)[0]).toLocaleString("en");
  history.replaceState(null, "", slider.value === slider.max ? location.pathname : `#${name}`);
}
if (slider) {
  const asked = panels.indexOf(decodeURIComponent(location.hash.slice(1)));
  if (asked >= 0) slider.value = asked;
  slider.addEventListener("input", look);
  look();
}

const every = Number(document.getElementById("top").dataset.every);
if (every) setTimeout(() => location.reload(), 1000 * every); // where one had scrolled to, browsers keep
