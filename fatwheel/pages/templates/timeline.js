const { wall, cores, budget, wheels, steps, jobs, idle, why, memory } = data;
const STEP = 100, MOST_ZOOM = 256, FAR = 4;
const CLASSES = { "front": "front", "shared front": "shared", "ptxas": "ptxas", "C++": "cpp" };
const OUTCOMES = { done: "ended well", failed: "failed", again: "killed; it ran again, alone", unfinished: "was running when the build ended" };

// -- words ---------------------------------------------------------------------------------------

// `12.1 s`, `1 min 23 s`, `2 h 05 min`, as `fatwheel.text.duration` has it.
function durationOf(seconds) {
  const padded = number => String(number).padStart(2, "0");
  if (+seconds.toFixed(1) < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${padded(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${padded(minutes % 60)} min`;
}
const kindOf = (kind, { host_object }) => kind === "C++" ? "C++ for the host" : kind + (host_object ? ", with host object" : "");
function factsOfJob([start, end, lane, kind, one]) {
  return [
    ["Unit", one.unit], ["Code", one.archs.join(", ")], ["Kind", kindOf(kind, one)], ["Worker", `${one.worker}, core ${lane + 1}`],
    ["When", `from ${durationOf(start)} to ${durationOf(end)}`],
    ["Took", one.outcome === "done" ? `${durationOf(one.seconds)}, CPU ${durationOf(one.cpu)}; ${durationOf(one.expected_seconds)} expected` : `${durationOf(end - start)}: ${OUTCOMES[one.outcome]}`],
    ["Memory", one.outcome === "done" ? `${sizeOf(one.rss)} at its peak; ${sizeOf(one.expected_memory)} expected` : `${sizeOf(one.expected_memory)} expected`],
    ["Why", one.reason],
  ];
}
function factsOfStep([start, end, , name, one]) {
  return [["Step", name], ["What", one.detail], ["When", `from ${durationOf(start)} to ${durationOf(end)}`],
    ["Took", durationOf(end - start) + (one.outcome === "done" ? "" : `: ${OUTCOMES[one.outcome]}`)]];
}
function factsOfWheel([start, end, title, one]) {
  return [["Wheel", title], ["File", one.file || "was not made"], ["When", `from ${durationOf(start)} to ${durationOf(end)}`],
    ["Slices", one.slices === null ? "" : `${one.hits} of ${one.slices} from the store`]];
}

// -- the chart: rows of bars ---------------------------------------------------------------------

const shortOf = unit => unit.slice(unit.lastIndexOf("/") + 1);
const styleOf = reason => `why-${["memory", "last", "alone"].includes(reason) ? reason : "other"}`;
const rows = [];
function addRow(label, items, style = "") { rows.push({ label, items, style }); }
addRow(wheels.length > 1 ? "wheels" : "wheel", wheels.map(one => ({ start: one[0], end: one[1], text: one[2], facts: factsOfWheel(one), style: "wheel" })));
const lanesOf = list => [...new Set(list.map(one => one[2]))].sort((a, b) => a - b);
for (const lane of lanesOf(steps)) {
  addRow(lane ? "" : "steps", steps.filter(one => one[2] === lane).map(one => ({
    start: one[0], end: one[1], text: one[3], facts: factsOfStep(one), style: `step ${one[4].outcome === "done" ? "" : "unfinished"}` })));
}
for (const lane of lanesOf(jobs)) {
  addRow(`core ${lane + 1}`, jobs.filter(one => one[2] === lane).map(one => ({
    start: one[0], end: one[1], text: (one[4].outcome === "done" ? "" : "✖ ") + `${shortOf(one[4].unit)} ${one[4].archs.join(" ")}`, facts: factsOfJob(one),
    style: `${CLASSES[one[3]]} ${one[4].host_object && one[3] !== "C++" ? "host" : ""} ${one[4].outcome === "done" ? "" : one[4].outcome}` })), lane === lanesOf(jobs)[0] ? "gap" : "");
}
if (cores) {
  addRow("idle cores", idle.map(([start, end, count, reason]) => ({
    start, end, text: reason, height: count / cores, style: `idle ${styleOf(reason)}`,
    facts: [["Idle", `${count} of ${numbered(cores, "core")}`], ["Why", why[reason]], ["When", `from ${durationOf(start)} to ${durationOf(end)}`], ["Core time", durationOf(count * (end - start))]] })), "tall gap");
}
const percent = seconds => 100 * seconds / (wall || 1);
function barOf(item, row, place) {
  const words = item.facts.filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`).join("; ");
  const bar = make("button", item.text, { type: "button", class: `job ${item.style}`, tabindex: "-1", "aria-label": words });
  bar.style.left = `${percent(item.start)}%`;
  bar.style.width = `${percent(item.end - item.start)}%`;
  if (item.height) bar.style.top = `${100 * (1 - item.height)}%`;
  Object.assign(bar.dataset, { row, place });
  item.bar = bar;
  return bar;
}
function rowOf(label, content, style) { return make("div", [make("b", label), make("div", content, { class: "lane" })], { class: `row ${style}` }); }
function ticks() {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];
  const room = Math.max(1, ($("plot").clientWidth - 90) / 90), step = steps.find(one => wall / one <= room) || wall;
  const found = [];
  for (let at = 0; at <= wall; at += step) {
    const tick = make("span", durationOf(at), { class: "tick" });
    tick.style.left = `${percent(at)}%`;
    found.push(tick);
  }
  return found;
}
function svg(tag, attributes, children = []) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const picture = (children, label) => svg("svg", { viewBox: `0 0 ${wall || 1} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label }, children);
function memoryRow() {
  const peak = Math.max(1, ...memory.map(([, rss]) => rss)), isNear = budget && budget < FAR * peak;
  const most = isNear ? Math.max(budget, peak) : 1.5 * peak, y = rss => 98 - 96 * rss / most;
  const line = memory.map(([at, rss]) => `L${at} ${y(rss)}`).join("");
  const shapes = [svg("path", { class: "used", "vector-effect": "non-scaling-stroke", d: `M${memory[0][0]} 98${line}L${memory[memory.length - 1][0]} 98Z` })];
  if (isNear) shapes.push(svg("line", { class: "budget", "vector-effect": "non-scaling-stroke", x1: 0, x2: wall, y1: y(budget), y2: y(budget) }));
  const words = `${sizeOf(peak)} at most` + (budget ? `; ${isNear ? "dashed: the budget," : "the budget is far above:"} ${sizeOf(budget)}` : "");
  return rowOf("memory", [picture(shapes, `Memory: ${words}`), make("span", words, { class: "note" })], "tall gap");
}
let zoom = 1;
function scale(factor) {
  const holder = $("scroll"), middle = (holder.scrollLeft + holder.clientWidth / 2) / $("plot").clientWidth;
  zoom = factor ? Math.min(MOST_ZOOM, Math.max(1, zoom * factor)) : 1;
  $("plot").style.width = `${100 * zoom}%`;
  holder.scrollLeft = middle * $("plot").clientWidth - holder.clientWidth / 2;
  $("times").querySelector(".lane").replaceChildren(...ticks());
}
function chart() {
  const times = rowOf("", [], "");
  times.id = "times";
  times.setAttribute("aria-hidden", "true");
  $("plot").append(times, ...rows.map((row, number) => rowOf(row.label, row.items.map((item, place) => barOf(item, number, place)), row.style)));
  if (memory.length) $("plot").append(memoryRow());
  const kinds = new Set(jobs.map(one => one[3])), swatch = (style, words) => make("li", [make("i", "", { class: `swatch ${style}` }), words]);
  const names = { "front": "front: one architecture", "shared front": "shared front: several", "ptxas": "ptxas: from a front's PTX", "C++": "C++ for the host" };
  $("legend").append(...Object.keys(names).filter(kind => kinds.has(kind)).map(kind => swatch(CLASSES[kind], names[kind])));
  if (jobs.some(one => one[4].host_object && one[3] !== "C++")) $("legend").append(swatch("front host", "underlined: makes the host object too"));
  if (jobs.some(one => ["failed", "again"].includes(one[4].outcome))) $("legend").append(swatch("failed", "✖ failed or killed"));
  if ([...jobs, ...steps].some(one => one[4].outcome === "unfinished")) $("legend").append(swatch("unfinished", "not ended"));
  for (const style of new Set(Object.keys(why).map(styleOf))) {
    const words = { "why-memory": "idle: memory", "why-last": "idle: nothing left to start", "why-alone": "idle: a job runs alone", "why-other": "idle: other steps, or between jobs" };
    $("legend").append(swatch(style, words[style]));
  }
  $("chart").hidden = false;
  scale(0);
}

// -- pointing at bars, by pointer and keyboard ---------------------------------------------------

let current = null;
function point(item) {
  $("pointed").replaceChildren(...item.facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}
const itemOf = bar => rows[bar.dataset.row].items[bar.dataset.place];
function go(item) {
  if (current) current.bar.tabIndex = -1;
  current = item;
  item.bar.tabIndex = 0;
}
function nearest(items, at) {
  const away = item => Math.max(item.start - at, at - item.end, 0);
  return items.reduce((one, other) => away(other) < away(one) ? other : one);
}
function neighbour(bar, key) {
  const row = +bar.dataset.row, place = +bar.dataset.place, { items } = rows[row];
  if (key === "ArrowLeft") return items[place - 1];
  if (key === "ArrowRight") return items[place + 1];
  if (key === "Home") return items[0];
  if (key === "End") return items[items.length - 1];
  const step = { ArrowUp: -1, ArrowDown: 1 }[key], middle = (items[place].start + items[place].end) / 2;
  for (let other = row + step; rows[other]; other += step) if (rows[other].items.length) return nearest(rows[other].items, middle);
  return undefined;
}
$("plot").addEventListener("keydown", event => {
  if (!event.target.classList.contains("job") || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  const next = neighbour(event.target, event.key);
  if (next) next.bar.focus();
});
$("plot").addEventListener("focusin", event => { if (event.target.classList.contains("job")) { go(itemOf(event.target)); point(current); } });
$("plot").addEventListener("pointerover", event => { const bar = event.target.closest(".job"); if (bar) point(itemOf(bar)); });
$("in").addEventListener("click", () => scale(2));
$("out").addEventListener("click", () => scale(0.5));
$("whole").addEventListener("click", () => scale(0));
addEventListener("resize", () => scale(1));

// -- the list of jobs ----------------------------------------------------------------------------

const COLUMNS = [["start", "Began", durationOf], ["took", "Took", durationOf], ["cpu", "CPU", durationOf], ["rss", "Peak memory", sizeOf]];
const listed = jobs.map(([start, end, lane, kind, one], place) => ({ ...one, name: one.unit, start, took: one.outcome === "done" ? one.seconds : end - start, place,
  words: [one.archs.join(" "), kindOf(kind, one), `worker ${one.worker}`, one.outcome === "done" ? "" : OUTCOMES[one.outcome]].filter(Boolean).join("; ") }));
for (const one of listed) one.text = `${one.name} ${one.words}`.toLowerCase();
let sort = { by: "took", down: true }, shown = STEP;
function list() {
  const words = wordsIn($("filter").value), found = listed.filter(one => words.every(word => one.text.includes(word)));
  const order = (a, b) => a[sort.by] < b[sort.by] ? -1 : a[sort.by] > b[sort.by] ? 1 : 0;
  found.sort((a, b) => (sort.down ? order(b, a) : order(a, b)) || a.place - b.place);
  const sum = name => found.reduce((all, one) => all + one[name], 0);
  $("count").textContent = `${found.length.toLocaleString("en")} of ${numbered(listed.length, "job")}: ${durationOf(sum("took"))}, CPU ${durationOf(sum("cpu"))}`;
  const resort = by => { sort = turned(sort, by); list(); };
  const body = found.slice(0, shown).map(one => make("tr", [make("th", [one.name, make("div", one.words, { class: "soft" })], { scope: "row" }),
    ...COLUMNS.map(([name, , inWords]) => make("td", one.outcome === "done" || name === "start" || name === "took" ? inWords(one[name]) : ""))]));
  const heads = [sortHead("Unit", "name", sort, resort), ...COLUMNS.map(([name, label]) => sortHead(label, name, sort, resort))];
  put($("jobs"), [make("div", make("table", [make("thead", make("tr", heads)), make("tbody", body)]), { class: "table", tabindex: "0", role: "region", "aria-label": "Jobs" })]);
  $("more").hidden = found.length <= shown;
}
$("filter").addEventListener("input", () => { shown = STEP; list(); });
$("more").addEventListener("click", () => { shown += STEP; list(); });

chart();
const first = rows.flatMap(row => row.items)[0];
if (first) { go(first); point(jobs.length ? rows.find(row => row.style === "gap").items[0] : first); }
if (jobs.length) { $("list").hidden = false; list(); }
