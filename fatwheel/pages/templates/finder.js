const { gpus, wheels } = data;
const SHOWN = 100, RANKS = ["native", "jit", "part", "unknown"];

// -- what a wheel is for, from its tags ----------------------------------------------------------

function systemOf(platform) {
  if (platform === "any") return "any";
  if (/^win_amd64/.test(platform)) return "Windows x86-64";
  if (/linux.*_x86_64$/.test(platform)) return "Linux x86-64";
  if (/linux.*_aarch64$/.test(platform)) return "Linux aarch64";
  return platform;
}
for (const wheel of wheels) {
  const tags = wheel.tags.map(tag => tag.split("-"));
  wheel.systems = [...new Set(tags.map(tag => systemOf(tag[2])))];
  wheel.pythons = tags.map(([python, abi]) => [python, abi]);
  wheel.text = [wheel.filename, wheel.project, wheel.cuda && "cuda" + wheel.cuda, "torch" + wheel.torch,
    ...wheel.images, ...wheel.systems].join(" ").toLowerCase();
}
// A build of Python without its lock (cp313t) is another Python; no number here stands for it.
const isUnlocked = abi => /^cp3\d+t$/.test(abi);
function servesPython(wheel, minor) {
  if (wheel.refused.includes(minor)) return false;
  return wheel.pythons.some(([python, abi]) => {
    if (isUnlocked(abi)) return false;
    const own = /^(cp|py)3(\d+)$/.exec(python);
    // py38-none and cp38-abi3 are for 3.8 and newer; cp38-none is for 3.8 alone.
    const isLeast = own && (own[1] === "py" ? abi === "none" : abi === "abi3");
    if (own) return isLeast ? +own[2] <= minor : own[1] === "cp" && +own[2] === minor;
    return python === "py3" && abi === "none";
  });
}
function minorsOf(wheel) {
  return wheel.pythons.filter(([, abi]) => !isUnlocked(abi)).map(([python]) => /^(?:cp|py)3(\d+)$/.exec(python)).filter(Boolean).map(own => +own[1]);
}
const isServed = (wheel, asked) => asked.torch === "" || wheel.torch === "" || wheel.torch === asked.torch;
const runsOn = (wheel, system) => system === "" || wheel.systems.includes(system) || wheel.systems.includes("any");

// -- which GPU is meant --------------------------------------------------------------------------

const wordsOf = text => text.toLowerCase().replace(/\(r\)|\(tm\)|[^a-z0-9.]+/g, " ").trim().split(" ")
  .filter(word => !["nvidia", "geforce", "tesla", "to"].includes(word));
// `RTX 40` stands for RTX 4060 to 4090, `GTX 900` for GTX 950 to 980: a number at a name's end.
function isOfSeries(word, series) {
  if (!/^\d{4}$|^\d{3}$/.test(word)) return false;
  if (/^\d00$/.test(series)) return word.length === 3 && word[0] === series[0];
  return /^\d\d$/.test(series) && word.length === 4 && word.startsWith(series);
}
// How well words name a GPU: 0 for not at all, more for each word, most for words as they stand.
function scoreOf(words, name) {
  const range = /([a-z])(\d)000 to \1(\d)000/i.exec(name);
  if (range) {
    const within = new RegExp(`^${range[1]}[${range[2]}-${range[3]}]\\d{3}$`, "i");
    return words.some(word => within.test(word)) ? 20 : 0;
  }
  const [plain, alias] = name.split(/[()]/);
  if (alias && words.includes(alias.toLowerCase())) return 20;
  let score = 0;
  for (const named of wordsOf(plain)) {
    if (words.includes(named)) score += 10;
    else if (words.some(word => isOfSeries(word, named))) score += 5;
    else return 0;
  }
  return score;
}
const everyCapability = new Set([...gpus.map(gpu => gpu.capability), ...wheels.flatMap(wheel => Object.keys(wheel.gpus))]);
function capabilityOf(text) {
  const number = /^\s*(?:sm_?|compute_?|(?:compute )?capability[ :]*)?(\d{1,2})\.?(\d)[af]?\s*$/i.exec(text);
  // `980` is the name of a GPU, not capability 98.0.
  if (number && everyCapability.has(`${number[1]}.${number[2]}`)) return `${number[1]}.${number[2]}`;
  const words = wordsOf(text);
  const found = gpus.flatMap(gpu => gpu.names.map(name => [scoreOf(words, name), gpu.capability]));
  const best = found.reduce((one, other) => other[0] > one[0] ? other : one, [0, ""]);
  return best[1];
}
function understand(text) {
  const found = { gpus: [] };
  const add = name => { const capability = capabilityOf(name); if (capability) found.gpus.push(name.trim()); };
  for (const line of text.split(/\r?\n/).slice(0, 2000)) {
    const gpu = /^GPU \d+: (.+?)(?: \(UUID.*)?$/.exec(line.trim())
      || /^\|\s+\d+\s+(.+?)\s+(?:On|Off|WDDM|TCC|MCDM)\b/.exec(line);
    if (gpu) add(gpu[1]);
    const python = /Python version:\s*3\.(\d+)/.exec(line);
    if (python) found.python = python[1];
    const torch = /PyTorch version:\s*(\d+\.\d+)/.exec(line);
    if (torch) found.torch = torch[1];
    if (/^OS:.*Windows/i.test(line) || /\bWDDM\b/.test(line)) found.system = "Windows x86-64";
    else if (/^OS:.*(Linux|Ubuntu|Debian|Fedora|CentOS|Red Hat|Arch)/i.test(line)) {
      found.system = /aarch64/.test(text) ? "Linux aarch64" : "Linux x86-64";
    }
  }
  return found;
}

// -- the choice ----------------------------------------------------------------------------------

const numbers = version => (version.split("+")[0].match(/\d+/g) || []).map(Number);
function newerFirst(one, other) {
  const [a, b] = [numbers(one), numbers(other)];
  for (let place = 0; place < Math.max(a.length, b.length); place++) {
    const less = (b[place] || 0) - (a[place] || 0);
    if (less) return less;
  }
  return 0;
}
function howOn(wheel, capabilities) {
  if (!Object.keys(wheel.gpus).length && !wheel.images.length) return capabilities.length ? "none" : "native";
  const ranks = capabilities.map(one => wheel.gpus[one] ? RANKS.indexOf(wheel.gpus[one].how) : RANKS.length);
  const worst = Math.max(0, ...ranks);
  return RANKS[worst] || "none";
}
function choose(asked) {
  const steps = [
    ["of this project", wheel => asked.project === "" || wheel.project === asked.project],
    [`for ${asked.system}`, wheel => runsOn(wheel, asked.system)],
    [`for Python 3.${asked.python}`, wheel => asked.python === "" || servesPython(wheel, +asked.python)],
    [`for torch ${asked.torch}`, wheel => isServed(wheel, asked)],
    ["with code for this GPU", wheel => howOn(wheel, asked.capabilities) !== "none"],
  ];
  let left = wheels;
  for (const [what, passes] of steps) {
    const passed = left.filter(passes);
    if (!passed.length) return { best: null, why: what, before: left };
    left = passed;
  }
  const rank = wheel => RANKS.indexOf(howOn(wheel, asked.capabilities));
  left = [...left].sort((one, other) => rank(one) - rank(other) || newerFirst(one.version, other.version)
    || newerFirst(one.torch, other.torch) || newerFirst(one.cuda, other.cuda) || one.size - other.size);
  return { best: left[0], how: howOn(left[0], asked.capabilities), others: left.length - 1 };
}

// -- showing it ----------------------------------------------------------------------------------

const mebibytes = size => `${(size / 1048576).toFixed(1)} MiB`;
const address = wheel => new URL(wheel.url, document.baseURI).href;
const SAYS = {
  native: "It has machine code for this GPU.",
  jit: "It has no machine code for this GPU, only PTX: the driver compiles that at the first start, which can take minutes.",
  part: "Only a part of its code runs on this GPU: some functions will fail.",
  unknown: "It loads its GPU code itself, and nobody can tell from the file for which GPUs.",
};
function command(label, text) {
  const button = make("button", "Copy", { type: "button", "aria-label": `Copy the command for ${label}` });
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea", text); document.body.append(area); area.select();
      document.execCommand("copy"); area.remove();
    }
    button.textContent = "Copied";
  });
  return make("div", [make("code", text, { "data-for": label }), button], { class: "command" });
}
function showWheel(answer, chosen, asked) {
  const wheel = chosen.best;
  answer.append(make("h3", wheel.filename));
  if (asked.capabilities.length) answer.append(make("p", SAYS[chosen.how], { class: chosen.how }));
  for (const word of wheel.unproven || [])
    answer.append(make("p", `Built with ${word === "fast" ? "--fast" : `--front ${word}`}: its machine code may differ from what nvcc by itself makes.`));
  const url = address(wheel), checked = `${url}#sha256=${wheel.sha256}`;
  answer.append(command("pip", `pip install "${checked}"`));
  // uv takes what follows # in the URL of a file for a part of its name.
  answer.append(command("uv", `uv pip install "${url.startsWith("file:") ? url : checked}"`));
  const drivers = asked.capabilities.map(one => wheel.gpus[one] && wheel.gpus[one].driver).filter(Boolean);
  const facts = [
    ["What it is", wheel.summary], ["Built for", [wheel.cuda && `CUDA ${wheel.cuda}`, wheel.torch && `torch ${wheel.torch}`].filter(Boolean).join(", ")],
    ["GPU code", wheel.images.join(" ")], ["Driver", drivers.length ? `${drivers.sort(newerFirst)[0]} or newer` : ""],
    ["Python", wheel.requires_python], ["Size", mebibytes(wheel.size)], ["SHA-256", wheel.sha256],
    ["Date", wheel.newest ? new Date(wheel.newest * 1000).toISOString().slice(0, 10) : ""],
  ];
  const list = make("dl");
  for (const [name, value] of facts) if (value) list.append(make("dt", name), make("dd", value));
  const papers = Object.entries(wheel.papers);
  if (papers.length) {
    list.append(make("dt", "Provenance"), make("dd", papers.flatMap(([suffix, url]) =>
      [make("a", suffix.slice(1), { href: url }), " "])));
  }
  answer.append(list);
  if (chosen.others) answer.append(make("p", `${chosen.others} more would do. The newest with the best code for the GPU is shown.`));
}
function show() {
  const answer = $("answer"), named = $("gpu").value.split(/[,;]/).filter(text => text.trim());
  const capabilities = named.map(capabilityOf);
  answer.replaceChildren();
  const lost = named.find((_, place) => !capabilities[place]);
  if (lost) {
    answer.append(make("p", `No GPU called “${lost.trim()}” is known here. Give its compute capability, such as 8.9: nvidia-smi --query-gpu=compute_cap --format=csv`, { class: "none" }));
    return;
  }
  const asked = { capabilities, project: $("project").value, system: $("system").value,
    python: $("python").value, torch: $("torch").value };
  const chosen = choose(asked);
  if (chosen.best) return showWheel(answer, chosen, asked);
  answer.append(make("p", `There is no wheel ${chosen.why}.`, { class: "none" }));
  const there = chosen.before.slice(0, 5).map(wheel => make("li", `${wheel.filename} (${wheel.images.join(" ") || "no GPU code"})`));
  if (there.length) answer.append(make("p", "The nearest that there are:"), make("ul", there));
}
function list(everything) {
  const words = wordsIn($("filter").value);
  const found = wheels.filter(wheel => words.every(word => wheel.text.includes(word)));
  const shown = everything ? found : found.slice(0, SHOWN);
  $("count").textContent = `${found.length} of ${wheels.length} wheels`;
  $("more").hidden = shown.length === found.length;
  $("rows").replaceChildren(...shown.map(wheel => make("tr", [
    make("td", make("a", wheel.filename, { href: wheel.url })), make("td", wheel.cuda), make("td", wheel.torch),
    make("td", wheel.images.join(" ")), make("td", mebibytes(wheel.size)), make("td", make("code", wheel.sha256.slice(0, 12), { title: wheel.sha256 })),
  ])));
}
const each = values => [...new Set(values)];
for (const one of each(wheels.map(wheel => wheel.project))) $("project").append(make("option", one, { value: one }));
options($("system"), each(wheels.flatMap(wheel => wheel.systems)).filter(one => one !== "any").sort().map(one => [one, one]), "any");
options($("python"), each(wheels.flatMap(minorsOf)).sort((a, b) => a - b).map(one => [one, `3.${one}`]), "any");
options($("torch"), each(wheels.map(wheel => wheel.torch)).filter(Boolean).sort(newerFirst).map(one => [one, one]), "any");
$("names").append(...each(gpus.flatMap(gpu => gpu.names)).map(name => make("option", "", { value: name })));
function put(select, value) {
  if (value && ![...select.options].some(option => option.value === value)) select.append(make("option", value, { value }));
  if (value) select.value = value;
}
$("paste").addEventListener("input", () => {
  const found = understand($("paste").value);
  if (found.gpus.length) $("gpu").value = each(found.gpus).join(", ");
  put($("system"), found.system); put($("torch"), found.torch);
  if (found.python) { put($("python"), found.python); $("python").selectedOptions[0].textContent = `3.${found.python}`; }
  const parts = [found.gpus.length && `GPU: ${each(found.gpus).join(", ")}`, found.system, found.python && `Python 3.${found.python}`, found.torch && `torch ${found.torch}`];
  $("read").textContent = parts.some(Boolean) ? `Understood: ${parts.filter(Boolean).join("; ")}.` : "Nothing in it was understood.";
  show();
});
$("form").addEventListener("submit", event => event.preventDefault());
for (const id of ["gpu", "project", "system", "python", "torch"]) $(id).addEventListener("input", show);
$("filter").addEventListener("input", () => list(false));
$("more").addEventListener("click", () => list(true));
show();
list(false);
