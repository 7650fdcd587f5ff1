// What came and was not taken: devices that are not let in, and traffic that nobody recognised.

import { get, post } from "./api.js";
import { empty, h, notice, number, printable, replace, when } from "./dom.js";
import { inspector } from "./inspector.js";

export function strangers(root) {
  const idents = h("section", { class: "card" }, h("h2", {}, "Devices that are not let in"), empty("…"));
  const groups = h("section", { class: "card" }, h("h2", {}, "Traffic that nobody took"), empty("…"));
  const look = h("section", { class: "card" }, h("h2", {}, "What do these bytes say?"));
  const looked = inspector(look);
  root.append(h("h1", { class: "sr" }, "Unrecognised"), h("div", { class: "stack" }, idents, groups, look));

  function explain(hex) { looked.explain(hex); look.scrollIntoView({ block: "start" }); }

  async function adopt(ident, alias) {
    try {
      await post("/api/adopt", { ident, values: alias ? { alias } : {} });
      notice(`${ident} is let in`);
      await load();
    } catch (problem) { notice(problem.message, "bad"); }
  }

  function stranger(row) {
    const alias = h("input", { placeholder: "Name (optional)", "aria-label": `Name for ${row.ident}`, maxlength: 60 });
    return h("li", { class: "stranger" },
      h("div", {}, h("strong", {}, printable(row.ident)), " ", h("span", { class: "badge" }, printable(row.protocol || "?")),
        h("p", { class: "note" }, printable(row.reason), `; ${number(row.count)} frame${row.count === 1 ? "" : "s"}, the last `, when(row.last), ` from ${printable(row.peer || "?")}`),
        row.near.length ? h("p", { class: "note" }, "Near: ", row.near.map((one, i) => [i ? ", " : "", h("a", { href: `#/device/${encodeURIComponent(one)}` }, printable(one))])) : null,
        h("code", { class: "frame" }, printable(row.text))),
      h("form", { class: "actions", onsubmit: (event) => { event.preventDefault(); adopt(row.ident, alias.value.trim()); } },
        alias, h("button", { class: "main", "aria-label": `${row.disabled ? "Enable" : "Adopt"} ${row.ident}` }, row.disabled ? "Enable" : "Adopt"),
        h("button", { type: "button", onclick: () => explain(row.frame), "aria-label": `Explain the frame of ${row.ident}` }, "Explain")));
  }

  function group(one) {
    return h("li", { class: "stranger" },
      h("div", {},
        h("strong", {}, `${number(one.count)} × `, h("code", {}, printable(one.signature))), " ", h("span", { class: "badge" }, one.transport || "?"), " ",
        h("span", { class: "badge" }, one.type === "frame.unrecognised" ? "nobody's" : `${printable(one.protocol || "?")}, can't be read`),
        h("p", { class: "note" }, "First ", when(one.first), ", last ", when(one.last), ", from ",
          one.addresses.map((a) => `${printable(a.address)} (${number(a.count)})`).join(", "), one.more_addresses ? ` and ${number(one.more_addresses)} more` : ""),
        one.reasons.map((reason) => h("p", { class: "note" }, `${printable(reason.reason)} (${number(reason.count)})`)),
        h("code", { class: "frame" }, printable(one.text || one.frame))),
      h("div", { class: "actions" }, h("button", { onclick: () => explain(one.frame), "aria-label": `Explain ${printable(one.signature)}` }, "Explain")));
  }

  async function load() {
    try {
      const [unknown, nobody] = await Promise.all([get("/api/unknown"), get("/api/unrecognised")]);
      replace(idents, h("h2", {}, "Devices that are not let in"), unknown.idents.length ? h("ul", { class: "plain" }, unknown.idents.map(stranger))
        : empty("None. Where ", h("code", {}, "[identity] mode"), " is known or quarantine, new devices wait here to be adopted."));
      replace(groups, h("h2", {}, "Traffic that nobody took"), nobody.groups.length ? h("ul", { class: "plain" }, nobody.groups.map(group))
        : empty("None: all that came was some device's."));
    } catch (problem) {
      replace(idents, h("h2", {}, "Devices that are not let in"), h("p", { class: "error", role: "alert" }, problem.message));
    }
  }
  load();
  const timer = setInterval(() => { if (!root.contains(document.activeElement) || document.activeElement === root) load(); }, 15000);
  return () => clearInterval(timer);
}
