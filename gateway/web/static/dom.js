// Elements from values.  Text goes in as text, never as markup: what a device sends may hold anything.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return append(element, children);
}

// A text as it may be shown: what a terminal or an eye would not see is visible.
export function printable(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g,
    (c) => "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"));
}

export function age(ms) {
  const s = Math.max(ms / 1000, 0);
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

// A time in the viewer's zone, with the UTC behind it.
export function when(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return h("span", {}, "–");
  const at = new Date(ms);
  const today = at.toDateString() === new Date().toDateString();
  const utc = at.toISOString();
  return h("time", { datetime: utc, title: `${utc.replace("T", " ").replace("Z", "")} UTC` }, (today ? CLOCK : FULL).format(at));
}

export function number(n, digits = 0) {
  return n === null || n === undefined ? "–" : n.toLocaleString(undefined, { maximumFractionDigits: digits });
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${n.toLocaleString(undefined, { maximumFractionDigits: n < 10 && at ? 1 : 0 })} ${units[at]}`;
}

// A line over time, with its greatest value; figures of equal steps, the newest last.
export function sparkline(values, label) {
  const width = 240, height = 44, most = Math.max(...values, 1);
  const points = values.map((v, i) =>
    `${(i * width / Math.max(values.length - 1, 1)).toFixed(1)},${(height - 3 - v * (height - 6) / most).toFixed(1)}`);
  const line = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "spark", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  if (points.length > 1) {
    line.append(svg("polygon", { points: `0,${height} ${points.join(" ")} ${width},${height}`, class: "spark-area" }));
    line.append(svg("polyline", { points: points.join(" "), class: "spark-line" }));
  }
  return line;
}

export function table(head, rows, attributes = {}) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": attributes["aria-label"] || head.join(", ") },
    h("table", attributes,
      h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}

export function empty(text, ...more) {
  return h("p", { class: "empty" }, text, ...more);
}

export function notice(text, kind = "info") {
  const box = h("div", { class: `notice ${kind}` }, printable(text));
  document.getElementById("notices").append(box);
  setTimeout(() => box.remove(), kind === "bad" ? 9000 : 4000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notice("Copied");
  } catch {
    notice("The browser does not let us copy: select the text", "bad");
  }
}
