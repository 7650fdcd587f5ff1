// Says what each field, byte and bit of a frame means: as gateway decode does.

import { post } from "./api.js";
import { empty, h, printable, replace, table } from "./dom.js";

function facts(rows) {
  const placed = rows.filter((fact) => fact.where), rest = rows.filter((fact) => !fact.where);
  return [
    placed.length ? table(["Where", "Bytes", "Name", "Meaning"], placed.map((fact) =>
      [printable(fact.where), h("code", {}, printable(fact.raw)), printable(fact.name), printable(fact.meaning)]), { class: "facts", "aria-label": "What the frame says" }) : null,
    rest.map((fact) => h("p", { class: "note" }, h("strong", {}, printable(fact.name)), `: ${printable(fact.meaning)}`)),
  ];
}

function asText(hex) {
  const bytes = (hex.match(/../g) || []).map((pair) => parseInt(pair, 16));
  return bytes.every((byte) => (byte >= 32 && byte < 127) || byte === 13 || byte === 10) ? printable(String.fromCharCode(...bytes)) : hex;
}

export function explained(answer) {
  const parts = [];
  if (!answer.protocol) parts.push(h("p", {}, h("span", { class: "badge warn" }, "nobody's"), ` ${printable(answer.reason || "there is nothing to go by")}`));
  else parts.push(h("p", {}, h("span", { class: "badge good" }, printable(answer.protocol)), ` ${printable(answer.reason)} (confidence ${answer.confidence}, after ${answer.bytes_to_commit} bytes)`));
  for (const message of answer.messages) {
    parts.push(h("div", { class: "message" }, h("code", { class: "frame" }, asText(message.frame)), facts(message.facts),
      message.events.map((event) => h("p", { class: "note" }, "Leads to ", h("strong", {}, printable(event.type)), ` at ${printable(event.time)}`)),
      message.reply ? h("p", { class: "note" }, "Is answered ", h("code", {}, asText(message.reply))) : null));
  }
  for (const message of answer.undecodable)
    parts.push(h("div", { class: "message" }, h("code", { class: "frame" }, asText(message.frame)), h("p", { class: "error" }, `Can't be read: ${printable(message.error)}`), facts(message.facts)));
  if (answer.detection.length && (!answer.protocol || answer.detection.length > 1))
    parts.push(h("details", {}, h("summary", {}, "How it was found out whose it is"), h("ul", {}, answer.detection.map((line) => h("li", {}, printable(line))))));
  return parts;
}

// Builds it into a section; explain(hex) shows what bytes say.
export function inspector(section, { registry = {}, first = "" } = {}) {
  const field = h("textarea", { rows: 3, spellcheck: "false", "aria-label": "Bytes, in hex or as text", placeholder: "Bytes in hex, or a frame as text: *HQ,9170123456,V1,…#", value: first });
  const result = h("div", { class: "explained", "aria-live": "polite" }, empty("Every field, byte and status bit is explained here."));
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); explain(field.value); } }, field, h("button", { class: "main" }, "Explain"));
  section.append(form, result);

  async function explain(text) {
    const bare = text.replace(/\s+/g, "");
    const hex = /^([0-9a-f]{2})+$/i.test(bare) ? bare : [...new TextEncoder().encode(text.trim())].map((b) => b.toString(16).padStart(2, "0")).join("");
    field.value = asText(hex);
    if (!hex) return;
    try {
      replace(result, explained(await post("/api/explain", { hex, registry })));
    } catch (problem) {
      replace(result, h("p", { class: "error", role: "alert" }, problem.message));
    }
  }
  return { explain };
}
