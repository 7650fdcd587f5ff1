// How the whole does, at a glance.

import { age, bytes, empty, h, number, printable, replace, sparkline, table, when } from "./dom.js";
import { loadOverview, now, on, store } from "./store.js";

const OUTCOMES = {
  published: "Published", duplicate: "Duplicate", undecodable: "Could not be read", unauthorised: "Not let in",
  unrecognised: "Nobody's", refused: "Refused by Redis", limited: "Over a limit", dropped: "Dropped",
};

function tile(title, value, note, kind = "") {
  return h("div", { class: `card tile ${kind}` }, h("h2", {}, title), h("p", { class: "figure" }, value), h("p", { class: "note" }, note));
}

function draw(root, said) {
  const history = said.history || { reports: [], connections: [], step_s: 10 };
  const rates = history.reports.map((n) => n / history.step_s);
  const journal = said.journal || {};
  const share = journal.limit ? journal.bytes / journal.limit : 0;
  const { p50_ms: p50, p99_ms: p99 } = said.latency;
  replace(root,
    h("h1", { class: "sr" }, "Overview"),
    said.ready ? null : h("div", { class: "card banner bad", role: "alert" }, h("strong", {}, "Not ready. "), said.problems.map(printable).join("; ")),
    said.mode === "open" ? h("div", { class: "card banner warn" }, "Every ident is let in: whoever reaches the port can send as any device. ",
      h("code", {}, "[identity] mode"), " changes that.") : null,
    h("div", { class: "tiles" },
      h("div", { class: "card tile wide" }, h("h2", {}, "Frames a second"),
        h("p", { class: "figure" }, number(said.reports_per_s, 1)),
        sparkline(rates, `Frames a second in the last hour, ${number(Math.max(...rates, 0), 1)} at most`),
        h("p", { class: "note" }, rates.length ? `The last ${age(rates.length * history.step_s * 1000)}, ${number(Math.max(...rates, 0), 1)} at most` : "The line grows with time")),
      tile("Devices", number(said.devices.online), `heard in 15 min, of ${number(said.devices.known)} known`),
      tile("Connections", number(said.connections), `${number(said.pending)} frames wait to be stored`),
      tile("Stored within", p50 === null ? "–" : `${number(p50, 1)} ms`, p99 === null ? "nothing came lately" : `99 in 100 within ${number(p99, 1)} ms`, p99 > 1000 ? "warn" : ""),
      tile("Redis", said.redis.ready ? "Takes all" : "Away", printable(said.redis.address), said.redis.ready ? "good" : "bad"),
      tile("Journal", number(journal.frames), `frames wait on the disk; ${bytes(journal.bytes)} of ${bytes(journal.limit)}`, share > 0.8 ? "bad" : journal.frames ? "warn" : "")),
    h("div", { class: "columns" },
      h("section", { class: "card" }, h("h2", {}, "Alarms now"),
        said.alarms.length ? h("ul", { class: "rows" }, said.alarms.map((alarm) => h("li", {},
          h("a", { href: `#/device/${encodeURIComponent(alarm.ident)}` }, printable(nameOf(alarm.ident))),
          h("span", { class: "badge alarm" }, printable(alarm.name || alarm.type.replace("alarm.", ""))),
          when(Date.parse(alarm.since || alarm.time)))))
          : empty("None is on.")),
      h("section", { class: "card" }, h("h2", {}, "What became of frames"),
        Object.keys(said.outcomes).length ? h("dl", { class: "pairs" }, Object.entries(said.outcomes).map(([name, n]) =>
          [h("dt", {}, OUTCOMES[name] || name), h("dd", {}, number(n))])) : empty("Nothing came since the start."),
        Object.keys(said.limits).length ? [h("h3", {}, "Limits that were met"), h("dl", { class: "pairs" },
          Object.entries(said.limits).map(([name, n]) => [h("dt", {}, h("code", {}, name)), h("dd", {}, number(n))]))] : null),
      h("section", { class: "card" }, h("h2", {}, "Who reads"),
        said.groups.length ? table(["Stream", "Group", "Behind", "Not acknowledged", "Oldest"], said.groups.map((g) =>
          [printable(g.stream), printable(g.group), number(g.lag), number(g.pending), g.behind_s === undefined ? "–" : age(g.behind_s * 1000)]), { "aria-label": "Consumer groups" })
          : empty("No consumer group reads the streams.")),
      h("section", { class: "card" }, h("h2", {}, "Processes"),
        table(["Name", "State", "Connections", "Up"], said.processes.map((p) =>
          [printable(p.name), p.ready ? "ready" : "not ready", number(p.connections), p.since ? age(now() - p.since * 1000) : "–"]), { "aria-label": "Processes" }),
        h("p", { class: "note" }, `Version ${said.version}, mode ${said.mode}`))));
}

function nameOf(ident) {
  const device = store.devices.get(ident);
  return device && device.name ? `${device.name} (${ident})` : ident;
}

export function overview(root) {
  const box = h("div", {});
  root.append(box);
  replace(box, empty("…"));
  if (store.overview) draw(box, store.overview);
  const stop = on("overview", (said) => draw(box, said));
  loadOverview().catch((problem) => { if (!store.overview) replace(box, h("div", { class: "card banner bad", role: "alert" }, problem.message)); });
  const timer = setInterval(() => loadOverview().catch(() => {}), 10000);
  return () => { stop(); clearInterval(timer); };
}
