const { wheels, methods } = data;
const CLASSES = 8, STEP = 100, LINE = 18;  // LINE: pixels of a row of the overview, as in the style

// -- the heat scale: each class is for sizes up to four times those of the class below -----------

function scaleOf(most) {
  const upTo = number => Math.ceil(most / 4 ** (CLASSES - 1 - number));
  const limits = Array.from({ length: CLASSES }, (_, number) => upTo(number));
  return { limits, classOf: size => limits.findIndex(limit => size <= limit) };
}
function legend(scale, columns, cells) {
  const { limits } = scale, upTo = (limit, number) => make("li", `to ${sizeOf(limit)}`, { class: `key h${number}` });
  const keys = limits.map(upTo).filter((_, number) => limits[number] !== limits[number - 1]);
  const swatch = (kind, words) => make("li", [make("i", "", { class: `swatch h3 ${kind}` }), words]);
  const kinds = { cubin: "cubin, machine code", PTX: "PTX, for the driver to compile" };
  for (const [kind, words] of Object.entries(kinds)) if (columns.some(column => column[1] === kind)) keys.push(swatch(kind, words));
  if (cells.some(row => row.some(cell => cell && cell[1]))) keys.push(make("li", [make("small", "lz4, zstd"), " compressed"]));
  if (cells.some(row => row.includes(null))) keys.push(make("li", "– no image"));
  return make("ul", keys, { class: "legend", "aria-label": "Legend" });
}

// -- a heat map as a table -----------------------------------------------------------------------

const totalOf = cells => cells.reduce((sum, cell) => sum + (cell ? cell[0] : 0), 0);
function cellOf(cell, [name, kind], scale) {
  if (!cell) return make("td", "–", { class: "cell missing", "aria-label": `no ${name} ${kind}` });
  const content = [sizeOf(cell[0])];
  if (cell[1]) content.push(make("small", methods[cell[1]]));
  return make("td", content, { class: `cell h${scale.classOf(cell[0])} ${kind}`, title: `${name} ${kind}: ${cell[0].toLocaleString("en")} bytes` });
}
// rows: { name, more, cells, total }; sort: { by, down }, where by is "name", "total" or a column's number.
function heatTable(what, columns, rows, scale, sort, resort) {
  const heads = [sortHead(what, "name", sort, resort), ...columns.map(([name, kind], number) => sortHead(name, number, sort, resort, kind)), sortHead("all", "total", sort, resort)];
  const body = rows.map(row => make("tr", [
    make("th", row.more ? details(row) : row.name, { scope: "row" }),
    ...row.cells.map((cell, number) => cellOf(cell, columns[number], scale)),
    make("td", sizeOf(row.total), { class: "cell" }),
  ]));
  return make("div", make("table", [make("thead", make("tr", heads)), make("tbody", body)]),
    { class: "table", tabindex: "0", role: "region", "aria-label": `${what} by size` });
}
function details(row) {
  const list = make("ul"), found = make("details", [make("summary", row.name), list]);
  found.addEventListener("toggle", () => { if (!list.children.length) list.append(...row.more().map(one => make("li", one))); });
  return found;
}
function sorted(rows, { by, down }) {
  const size = row => by === "total" ? row.total : row.cells[by] ? row.cells[by][0] : -1;
  const order = by === "name" ? (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0) : (a, b) => size(a) - size(b);
  return [...rows].sort((a, b) => (down ? order(b, a) : order(a, b)) || a.place - b.place);
}
// -- one file's maps -----------------------------------------------------------------------------

let wheel, scales, filtered, shown, sorts;
for (const one of wheels) {
  one.files = one.files.map(([path, what, cells], place) => ({ name: path, more: () => [what], cells, total: totalOf(cells), place }));
  one.units = one.units.map(([file, container, count, called, names, cells], place) => {
    const path = one.files[file] ? one.files[file].name : "another file";
    const at = container === null ? path : `${path}, container ${container}`;
    const name = called + (count > 1 ? ` and ${count - 1} more` : "");
    const more = () => [at, ...names, ...(count > names.length ? [`and ${numbered(count - names.length, "more kernel")}`] : [])];
    return { name, more, cells, total: totalOf(cells), place, file, text: [at, ...names].join(" ").toLowerCase() };
  });
}
const sizesIn = rows => rows.flatMap(row => row.cells).filter(Boolean).map(cell => cell[0]);
const largest = rows => sizesIn(rows).reduce((one, other) => Math.max(one, other), 1);
function choose(number) {
  wheel = wheels[number];
  document.querySelectorAll("section.wheel").forEach((section, place) => { section.hidden = place !== number; });
  $("maps").hidden = !wheel.files.length;
  scales = { files: scaleOf(largest(wheel.files)), units: scaleOf(largest(wheel.units)) };
  sorts = { files: { by: "total", down: true }, units: { by: "total", down: true } };
  $("file").replaceChildren(); $("image").replaceChildren(); $("filter").value = "";
  options($("file"), wheel.files.map((file, place) => [place, file.name]), "all files");
  options($("image"), wheel.columns.flatMap(([name, kind], place) => [[`+${place}`, `with ${name} ${kind}`], [`-${place}`, `without ${name} ${kind}`]]), "all units");
  $("rows").replaceChildren(...wheel.columns.map(([name]) => make("li", name)));
  showFiles();
  filter();
}
function rest([count, bytes], noun) {
  return count ? [make("p", `and ${numbered(count, `more ${noun}`)} with ${sizeOf(bytes)}`, { class: "soft" })] : [];
}
function showFiles() {
  const rows = sorted(wheel.files, sorts.files);
  const resort = by => { sorts.files = turned(sorts.files, by); showFiles(); };
  put($("files"), [legend(scales.files, wheel.columns, wheel.files.map(file => file.cells)),
    heatTable("File", wheel.columns, rows, scales.files, sorts.files, resort), ...rest(wheel.more_files, "file")]);
}
function filter() {
  const words = wordsIn($("filter").value), file = $("file").value, image = $("image").value;
  const passes = unit => (file === "" || unit.file === +file)
    && (image === "" || (unit.cells[+image.slice(1)] !== null) === (image[0] === "+"))
    && words.every(word => unit.text.includes(word));
  filtered = sorted(wheel.units.filter(passes), sorts.units);
  shown = STEP;
  showUnits();
  draw();
}
function showUnits() {
  const rows = filtered.slice(0, shown);
  const resort = by => { sorts.units = turned(sorts.units, by); filter(); };
  $("count").textContent = `${filtered.length.toLocaleString("en")} of ${numbered(wheel.units.length, "unit")}, ${sizeOf(filtered.reduce((sum, unit) => sum + unit.total, 0))}`
    + (rows.length < filtered.length ? `; ${rows.length} are listed` : "");
  $("more").hidden = rows.length === filtered.length;
  put($("units"), [legend(scales.units, wheel.columns, rows.map(unit => unit.cells)),
    heatTable("Unit", wheel.columns, rows, scales.units, sorts.units, resort), ...rest(wheel.more_units, "unit")]);
}

// -- all units at a glance: one column of pixels for each, or for several ------------------------

function unitAt(x, width) {
  return filtered[Math.min(filtered.length - 1, Math.floor(x / width * filtered.length))];
}
function stripesIn(pen, colour, size) {
  const tile = make("canvas", "", { width: size, height: size }), own = tile.getContext("2d");
  own.strokeStyle = colour;
  own.lineWidth = size / 4;
  for (const shift of [-size, 0, size]) { own.moveTo(shift, size); own.lineTo(shift + size, 0); }
  own.stroke();
  return pen.createPattern(tile, "repeat");
}
function draw() {
  const canvas = $("canvas"), ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), line = LINE * ratio, count = wheel.columns.length;
  canvas.style.height = `${count * LINE}px`;
  canvas.width = width;
  canvas.height = Math.round(count * line);
  const pen = canvas.getContext("2d");
  const colours = Array.from({ length: CLASSES }, (_, number) => style.getPropertyValue(`--h${number}`));
  pen.fillStyle = style.getPropertyValue("--clear");
  pen.fillRect(0, 0, width, canvas.height);
  const stripes = stripesIn(pen, style.getPropertyValue("--stripe"), 6 * ratio);
  const bins = Math.min(width, filtered.length);
  for (let bin = 0; bin < bins; bin++) {
    const from = Math.floor(bin * filtered.length / bins), to = Math.max(from + 1, Math.floor((bin + 1) * filtered.length / bins));
    const x = Math.floor(bin * width / bins), wide = Math.ceil((bin + 1) * width / bins) - x - (width / bins > 4 * ratio ? ratio : 0);
    for (let column = 0; column < count; column++) {
      let most = -1;
      for (let place = from; place < to; place++) { const cell = filtered[place].cells[column]; if (cell) most = Math.max(most, cell[0]); }
      if (most < 0) continue;
      pen.fillStyle = colours[scales.units.classOf(most)];
      pen.fillRect(x, Math.round(column * line), wide, Math.round(line) - ratio);
      if (wheel.columns[column][1] !== "PTX") continue;
      pen.fillStyle = stripes;
      pen.fillRect(x, Math.round(column * line), wide, Math.round(line) - ratio);
    }
  }
  const rows = wheel.columns.map(([name, kind]) => `${name} ${kind}`).join(", ");
  canvas.setAttribute("aria-label", `${numbered(filtered.length, "unit")} from left to right, as sorted below; rows are ${rows}. The table below has the numbers.`);
  point(null);
}
function point(unit, column) {
  if (!unit) { $("pointed").textContent = "Each unit is a column, each kind of image a row; the stronger its colour, the larger."; return; }
  const cell = unit.cells[column], [name, kind] = wheel.columns[column];
  $("pointed").textContent = `${unit.name}: ${name} ${kind} ${cell ? sizeOf(cell[0]) : "none"}, all ${sizeOf(unit.total)}`;
}
$("canvas").addEventListener("pointermove", event => {
  if (!filtered.length) return;
  const box = $("canvas").getBoundingClientRect();
  const column = Math.max(0, Math.min(wheel.columns.length - 1, Math.floor((event.clientY - box.top) / LINE)));
  point(unitAt(event.clientX - box.left, box.width), column);
});
$("canvas").addEventListener("pointerleave", () => point(null));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("resize", draw);
for (const id of ["filter", "file", "image"]) $(id).addEventListener("input", filter);
$("more").addEventListener("click", () => { shown += STEP; showUnits(); });
if ($("wheel")) $("wheel").addEventListener("input", () => choose(+$("wheel").value));
choose(0);
