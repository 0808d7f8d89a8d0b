const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
// Text is text: what is in `content` is never read as HTML.
function make(tag, content = "", attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const one of [content].flat()) element.append(one);
  return element;
}
function options(select, values, any = null) {
  if (any !== null) select.append(make("option", any, { value: "" }));
  select.append(...values.map(([value, label]) => make("option", label, { value })));
}
// `512 B`, `3.4 KiB`, `12.3 MiB`, as `fatwheel.text.size` has it.
function sizeOf(count) {
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = count / 1024, power = 0;
  while (+value.toFixed(1) >= 1024 && power < units.length - 1) { value /= 1024; power++; }
  return `${value.toFixed(1)} ${units[power]}`;
}
const numbered = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const wordsIn = text => text.toLowerCase().split(/\s+/).filter(Boolean);

// -- sorted tables: { by, down } says by which column ----------------------------------------------

function sortHead(label, by, sort, resort, small = "") {
  const is = sort.by === by, arrow = is ? (sort.down ? " ▼" : " ▲") : "";
  const button = make("button", [label + arrow, ...(small ? [make("small", small)] : [])], { type: "button", "data-by": by });
  button.addEventListener("click", () => resort(by));
  return make("th", button, { scope: "col", class: by === "name" ? "" : "number", "aria-sort": is ? (sort.down ? "descending" : "ascending") : "none" });
}
const turned = (sort, by) => ({ by, down: sort.by === by ? !sort.down : by !== "name" });
// Put a new table in the place of an old one; who pressed a button of its head stays on it.
function put(holder, children) {
  const by = holder.contains(document.activeElement) ? document.activeElement.dataset.by : undefined;
  holder.replaceChildren(...children);
  if (by !== undefined) holder.querySelector(`button[data-by="${by}"]`).focus();
}

