// One device: what is to be said of it, where it was, what it sent, and what it can be told.

import { device as path, get, post } from "./api.js";
import { age, copy, empty, h, notice, number, printable, replace, table, when } from "./dom.js";
import { explained, inspector } from "./inspector.js";
import { STATES } from "./fleet.js";
import { fit, makeMap, Track } from "./map.js";
import { now, on, store } from "./store.js";

const YES = (flag, yes, no) => (flag === null || flag === undefined ? "–" : flag ? yes : no);

export function device(root, ident) {
  const stops = [];
  const head = h("div", { class: "head" }, h("h1", {}, printable(ident)));
  const mapBox = h("div", { class: "map small", role: "application", "aria-label": "Track" });
  const hours = h("select", { "aria-label": "Track of the last" }, [["1", "hour"], ["6", "6 hours"], ["24", "24 hours"], ["168", "7 days"]].map(([value, text]) =>
    h("option", { value, selected: value === "6" ? "selected" : null }, `Last ${text}`)));
  const trackNote = h("p", { class: "note", role: "status" });
  const state = h("dl", { class: "pairs" });
  const sections = {};
  const section = (name, title) => { sections[name] = h("section", { class: "card", "aria-label": title }, h("h2", {}, title), h("div", { class: "body" }, empty("…"))); return sections[name]; };
  const body = (name) => sections[name].querySelector(".body");
  root.append(head, h("div", { class: "device" },
    h("div", {},
      h("section", { class: "card where", "aria-label": "Track" }, h("div", { class: "tools" }, h("h2", {}, "Track"), hours), mapBox, trackNote),
      section("frames", "Frames")),
    h("div", {},
      h("section", { class: "card state-now", "aria-label": "Last state" }, h("h2", {}, "Last state"), state),
      section("commands", "Commands"), section("events", "Events"), section("registry", "Registry"), section("sms", "Set-up by SMS"))));

  const map = makeMap(mapBox, store.session);
  stops.push(() => map.remove());
  let layer = null, marker = null, shown = null, disposed = false;

  // -- what is known

  async function load() {
    try {
      const answer = await get(path(ident));
      if (disposed) return;
      const first = !shown;
      shown = answer;
      drawHead(); drawState();
      if (first) { drawRegistry(); drawFrames(); drawCommands(); }
    } catch (problem) {
      if (!shown) replace(head, h("h1", {}, printable(ident)), h("p", { class: "error", role: "alert" }, problem.message));
    }
  }

  function drawHead() {
    const one = shown.device;
    replace(head,
      h("div", { class: "title" }, h("h1", {}, printable(one.alias || one.device_id || ident)), one.alias || one.device_id ? h("span", { class: "note" }, ident) : null,
        h("span", { class: `badge ${one.state}` }, STATES[one.state] || one.state)),
      h("p", { class: "verdict" }, printable(shown.verdict)),
      shown.near.length ? h("p", { class: "note" }, "Near: ", shown.near.map((near, i) => [i ? ", " : "", h("a", { href: `#/device/${encodeURIComponent(near)}` }, printable(near))])) : null);
  }

  function drawState() {
    const one = shown.device, at = now();
    const rows = [
      ["Heard", one.seen === null ? "never" : [when(one.seen), ` (${age(at - one.seen)} ago)`]],
      ["Last fix", one.fix_time === null ? "none" : [when(one.fix_time), ` (${age(at - one.fix_time)} ago)`]],
      ["Place", one.latitude === null ? "–" : `${one.latitude.toFixed(6)}, ${one.longitude.toFixed(6)}`],
      ["Speed, course", `${one.speed_kmh === null ? "–" : `${number(one.speed_kmh, 1)} km/h`}, ${one.course_deg === null ? "–" : `${one.course_deg}°`}`],
      ["Ignition", YES(one.ignition, "on", "off") + (shown.acc === "unwired" ? " (ACC not wired)" : "")],
      ["Relay", YES(one.immobilizer, "CUT", "closed")],
      ["Supply", [YES(one.external_power, "external", "battery"), one.battery_pct === null ? "" : `, ${number(one.battery_pct)} %`]],
      ["Alarms", one.levels.length ? printable(one.levels.join(", ")) : "none"],
      ["Channel", printable([one.transport, one.peer, one.protocol].filter(Boolean).join(", ") || "–")],
      ["Interval", shown.interval_s ? `${number(shown.interval_s, 1)} s` : "–"],
      ["Held by", printable(shown.holder || "nobody")],
    ];
    if (shown.conflict) rows.push(["Two senders", printable(shown.conflict.join(" and "))]);
    replace(state, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    if (shown.refusals.length) state.append(h("dt", {}, "Turned away"), h("dd", {}, h("ul", { class: "plain" }, shown.refusals.slice(0, 5).map((one) =>
      h("li", { class: "note" }, when(one.at), ` ${printable(one.type)} by its ${one.by}: ${printable(one.limit || one.reason)}`)))));
  }

  async function drawTrack() {
    trackNote.textContent = "Looking …";
    try {
      const track = await get(path(ident, `/track?hours=${hours.value}`));
      if (disposed) return;
      if (layer) map.removeLayer(layer);
      layer = new Track(track.points).addTo(map);
      if (track.points.length) fit(map, track.points.map((p) => [p[1], p[2]]));
      else if (shown && shown.device.latitude !== null) map.setView([shown.device.latitude, shown.device.longitude], 13);
      const last = track.points[track.points.length - 1];
      replace(trackNote, track.points.length ? [`${number(track.points.length)} reports, the last `, when(last[0])] : "No report with a fix in this time",
        track.complete ? "" : [". Looked back to ", when(track.looked_to), " only: there is much on the stream"]);
    } catch (problem) { trackNote.textContent = problem.message; }
  }
  hours.addEventListener("change", drawTrack);

  // -- frames

  function drawFrames() {
    const looked = h("div", {});
    const tracing = shown.traced_until && shown.traced_until > now();
    const list = h("ol", { class: "raw" });
    const toggle = h("button", {
      onclick: async () => {
        try {
          const answer = await post(path(ident, "/trace"), { for_s: shown.traced_until ? 0 : 600 });
          shown.traced_until = answer.until;
          notice(answer.until ? "Each frame is recorded for 10 minutes" : "Frames are not recorded any more");
          drawFrames();
        } catch (problem) { notice(problem.message, "bad"); }
      },
    }, tracing ? "Stop recording" : "Record for 10 minutes");
    const box = h("div", {});
    const look = inspector(box, { registry: shown.registry });
    replace(body("frames"),
      h("p", { class: "note" }, tracing ? ["Each frame is recorded until ", when(shown.traced_until)] : "The last frame is kept once a minute; recording shows each as it comes. ", " ", toggle),
      list, shown.frame.hex ? h("div", {}, h("h3", {}, "The last frame", shown.frame.at ? [" of ", when(shown.frame.at)] : null), looked) : empty("No frame is kept of it yet."),
      h("h3", {}, "Another one"), box);
    if (shown.frame.hex) post("/api/explain", { hex: shown.frame.hex, registry: shown.registry }).then((answer) => replace(looked, explained(answer)), (problem) => replace(looked, problem.message));
    const line = (entry) => {
      const data = entry.data, up = entry.type === "frame.raw.up";
      const hex = data.frame || "";
      return h("li", {}, h("button", { class: "quiet frame", disabled: !hex, onclick: () => { look.explain(hex); box.scrollIntoView({ block: "nearest" }); }, title: "Explain" },
        h("span", { class: up ? "up" : "down", "aria-label": up ? "from the device" : "to the device" }, up ? "▲" : "▼"), " ", when(Date.parse(entry.time)), " ",
        data.outcome ? h("span", { class: "badge" }, data.outcome) : null, " ", h("code", {}, hex ? text(hex) : printable(data.reason || ""))));
    };
    get(path(ident, "/raw?count=30")).then((answer) => replace(list, answer.entries.map(line)), () => {});
    rawCame = (entry) => { list.prepend(line(entry)); while (list.children.length > 60) list.lastChild.remove(); };
  }
  let rawCame = () => {};
  stops.push(on("raw", (entry) => { if (entry.ident === ident) rawCame(entry); }));

  // -- events

  const events = h("ol", { class: "events" });
  let oldest = null;
  const more = h("button", { onclick: () => loadEvents() }, "Earlier");
  function event(entry) {
    const data = entry.data;
    const words = ["phase", "reason", "name", "command", "limit", "reply_text", "ignition", "immobilizer", "duration_s"].filter((name) => data[name] !== undefined)
      .map((name) => (name === "phase" || name === "reason" || name === "command" ? data[name] : `${name} ${data[name]}`)).join("; ");
    return h("li", {}, when(Date.parse(entry.time)), " ", h("strong", {}, printable(entry.type)), " ", h("span", { class: "note" }, printable(words)));
  }
  async function loadEvents() {
    try {
      const answer = await get(path(ident, `/events?count=40${oldest ? `&before=${oldest}` : ""}`));
      if (disposed) return;
      if (!oldest) replace(body("events"), events, more);
      events.append(...answer.entries.map(event));
      more.hidden = answer.entries.length < 40;
      if (answer.entries.length) oldest = Number(answer.entries[answer.entries.length - 1].entry.split("-")[0]);
      else if (!events.children.length) replace(body("events"), empty("Nothing happened to it that is still kept."));
    } catch (problem) { replace(body("events"), h("p", { class: "error" }, problem.message)); }
  }
  const news = (entry) => { if (entry.ident === ident) { if (!events.isConnected) replace(body("events"), events, more); events.prepend(event(entry)); } };
  stops.push(on("event", news), on("result", news));

  // -- the registry

  function drawRegistry() {
    const rows = h("div", { class: "fields" });
    const add = (name, value) => rows.append(h("div", { class: "field" },
      h("input", { value: name, "aria-label": "Field", placeholder: "field", class: "key", spellcheck: "false" }),
      h("input", { value, "aria-label": `Value of ${name || "the field"}`, placeholder: "value", class: "value", spellcheck: "false" })));
    Object.entries(shown.registry).sort().forEach(([name, value]) => add(name, value));
    if (!Object.keys(shown.registry).length) add("alias", "");
    replace(body("registry"),
      h("form", {
        onsubmit: async (happened) => {
          happened.preventDefault();
          const values = {};
          for (const name of Object.keys(shown.registry)) values[name] = null;
          for (const field of rows.children) {
            const key = field.querySelector(".key").value.trim(), value = field.querySelector(".value").value.trim();
            if (key) values[key] = value || null;
          }
          try {
            const answer = await post(path(ident, "/registry"), { values });
            shown.registry = answer.registry;
            notice("Written: it holds from the next frame on");
            drawRegistry(); load();
          } catch (problem) { notice(problem.message, "bad"); }
        },
      }, rows, h("div", { class: "actions" }, h("button", { type: "button", onclick: () => { add("", ""); rows.lastChild.querySelector("input").focus(); } }, "Add a field"), h("button", { class: "main" }, "Save"))),
      h("p", { class: "note" }, "alias, device_id, phone, imei, tags, enabled (0 turns it away), acc_wired, and fields of your own. An empty value takes a field out."));
  }

  // -- commands

  async function drawCommands() {
    let known;
    try { known = await get("/api/commands"); } catch (problem) { replace(body("commands"), h("p", { class: "error" }, problem.message)); return; }
    const support = known.devices[shown.device.protocol] || {};
    const can = known.commands.filter((one) => !shown.device.protocol || (support[one.name] && support[one.name].channels.some((channel) => channel === "data" || known.sms)));
    if (!can.length) { replace(body("commands"), empty(`${shown.device.protocol || "It"} can't be told anything.`)); return; }
    const choice = h("select", { id: "command" }, can.map((one) => h("option", { value: one.name, disabled: !one.enabled }, `${one.name}${one.enabled ? "" : " (not enabled)"}`)));
    const form = h("form", { class: "command" });
    const steps = h("div", { class: "steps" });
    replace(body("commands"), h("label", { for: "command" }, "Command"), choice, form, steps);
    const free = (one) => !support[one.name] || support[one.name].channels.includes("data"); // a text costs something
    const first = can.find((one) => one.enabled && !one.dangerous && free(one)) || can.find((one) => one.enabled);
    if (first) choice.value = first.name;
    const fields = () => {
      const one = can.find((each) => each.name === choice.value);
      const inputs = one.arguments.map((argument) => {
        const id = `arg-${argument.name}`;
        const input = argument.choices.length ? h("select", { id }, argument.choices.map((c) => h("option", { value: c }, c)))
          : h("input", { id, type: argument.kind === "str" ? (one.secret ? "password" : "text") : "number", step: argument.kind === "float" ? "any" : "1", min: argument.kind === "str" ? null : argument.least, max: argument.kind === "str" ? null : argument.most, required: argument.required, autocomplete: "off" });
        return [argument, input];
      });
      const channels = support[one.name] ? support[one.name].channels : ["data"];
      const ways = [["data", "over its connection"], ["auto", "over its connection, by SMS where that fails for a while"], ["sms", "by SMS"]]
        .filter(([way]) => (way !== "sms" && channels.includes("data") && (way === "data" || (known.sms && channels.includes("sms")))) || (way === "sms" && known.sms && channels.includes("sms")));
      const channel = h("select", { id: "channel" }, ways.map(([way, words]) => h("option", { value: way }, words)));
      const ttl = h("input", { id: "ttl", type: "number", min: 1, max: one.max_ttl_s, value: one.name.startsWith("engine.") ? 300 : 3600 });
      replace(form,
        h("p", { class: "note" }, `${one.meaning}.`, support[one.name] && support[one.name].note ? ` ${printable(support[one.name].note)}` : "", support[one.name] ? ` (${support[one.name].certainty})` : ""),
        inputs.map(([argument, input]) => h("div", { class: "field" }, h("label", { for: input.id }, `${argument.name}: ${argument.meaning}`), input)),
        h("div", { class: "field" }, h("label", { for: "ttl" }, `Seconds that it may wait for the device, ${number(one.max_ttl_s)} at most`), ttl),
        ways.length > 1 || ways[0][0] !== "data" ? h("div", { class: "field" }, h("label", { for: "channel" }, "How it is told"), channel) : null,
        h("button", { class: one.dangerous ? "danger" : "main", disabled: !one.enabled }, "Send …"));
      form.onsubmit = (event) => {
        event.preventDefault();
        const args = {};
        for (const [argument, input] of inputs) if (input.value !== "") args[argument.name] = argument.kind === "str" ? input.value : Number(input.value);
        confirm(one, args, Number(ttl.value), channel.value);
      };
    };
    choice.addEventListener("change", fields);
    fields();

    function confirm(one, args, ttl, channel) {
      const who = shown.device.alias ? `${shown.device.alias} (${ident})` : ident;
      const said = Object.entries(args).map(([name, value]) => `${name} ${one.secret ? "•••" : value}`).join(", ");
      const sure = h("input", { type: "checkbox", id: "sure" });
      const send = h("button", { class: one.dangerous ? "danger" : "main", disabled: one.dangerous }, `Send ${one.name}`);
      sure.addEventListener("change", () => { send.disabled = !sure.checked; });
      const dialog = h("dialog", { "aria-labelledby": "asked" },
        h("form", { method: "dialog", onsubmit: (event) => { if (event.submitter === send) give(one, args, ttl, channel); } },
          h("h2", { id: "asked" }, `${one.name}?`),
          h("p", {}, `To ${printable(who)}${said ? `, ${printable(said)}` : ""}. It may wait ${number(ttl)} s for the device${channel === "data" ? "" : channel === "sms" ? ", and is told by SMS" : ", and may be told by SMS"}.`),
          one.guarded ? h("p", {}, "It is sent while the vehicle stands only, and never twice.") : null,
          one.dangerous ? h("p", {}, sure, " ", h("label", { for: "sure" }, "I know what this does to the vehicle or its connection")) : null,
          h("div", { class: "actions" }, h("button", { value: "no" }, "Do not send"), send)));
      dialog.addEventListener("close", () => dialog.remove());
      document.body.append(dialog);
      dialog.showModal();
    }

    async function give(one, args, ttl, channel) {
      try {
        const answer = await post(path(ident, "/command"), { command: one.name, args, ttl, channel });
        follow(answer.ref, one.name);
      } catch (problem) { notice(problem.message, "bad"); }
    }

    function follow(ref, name) {
      const list = h("ol", { class: "events" }, h("li", {}, "given; waits for the gateway to take it"));
      const cancel = h("button", { onclick: () => post(`/api/command/${encodeURIComponent(ref)}/cancel`).then(() => notice("Asked to take it back"), (problem) => notice(problem.message, "bad")) }, "Take back");
      const box = h("div", { class: "message", "aria-live": "polite" }, h("p", {}, h("strong", {}, name), ` · ${ref} `, cancel), list);
      steps.prepend(box);
      const seen = new Set();
      const step = (entry) => {
        if (seen.has(entry.entry)) return;
        if (!seen.size) list.replaceChildren();
        seen.add(entry.entry);
        const kind = entry.type.replace("command.", "");
        list.append(h("li", { class: `step ${kind}` }, when(Date.parse(entry.time)), " ", h("strong", {}, kind), " ", h("span", { class: "note" }, printable(entry.data.reason || entry.data.reply_text || ""))));
        if (entry.data.final) { cancel.remove(); stop(); load(); }
      };
      const stop = on("result", (entry) => { if (entry.data.ref === ref) step(entry); });
      stops.push(stop);
      const look = () => get(`/api/command/${encodeURIComponent(ref)}`).then((answer) => answer.steps.forEach(step), () => {});
      setTimeout(look, 1500);
      setTimeout(look, 6000);
    }
    for (const ref of shown.commands) { follow(ref, "waits"); }
  }

  // -- set-up

  function drawSms() {
    const host = h("input", { id: "sms-host", value: location.hostname === "localhost" || location.hostname.startsWith("127.") ? "" : location.hostname, placeholder: "203.0.113.7" });
    const apn = h("input", { id: "sms-apn", placeholder: "internet" });
    const password = h("input", { id: "sms-password", placeholder: "0000", maxlength: 16, autocomplete: "off" });
    const list = h("ol", { class: "texts" });
    const draw = async () => {
      const query = new URLSearchParams({ host: host.value, apn: apn.value });
      try {
        const answer = await get(path(ident, `/sms-setup?${query}`));
        const texts = answer.texts.map((one) => ({ ...one, text: one.text.replaceAll("{password}", () => password.value || "0000") }));
        replace(list, texts.length ? texts.map((one) => h("li", {}, h("div", {}, h("code", {}, printable(one.text)), h("p", { class: "note" }, `${one.meaning} (${one.certainty})`)),
          h("button", { onclick: () => copy(one.text), "aria-label": `Copy ${one.text}` }, "Copy"))) : h("li", {}, "It is not set up by SMS."));
      } catch (problem) { replace(list, h("li", { class: "error" }, problem.message)); }
    };
    let due = null;
    for (const input of [host, apn, password]) input.addEventListener("input", () => { clearTimeout(due); due = setTimeout(draw, 300); });
    replace(body("sms"), h("p", { class: "note" }, "Send these texts to the SIM of the tracker, one at a time, each after the answer to the one before."),
      h("div", { class: "fields three" }, h("div", { class: "field" }, h("label", { for: "sms-host" }, "Gateway's public address"), host),
        h("div", { class: "field" }, h("label", { for: "sms-apn" }, "APN of the SIM"), apn), h("div", { class: "field" }, h("label", { for: "sms-password" }, "Tracker's password"), password)), list);
    draw();
  }

  stops.push(on("devices", (rows) => {
    const row = rows && rows.find((one) => one.ident === ident);
    if (row && shown) { Object.assign(shown.device, row); drawState(); if (layer && row.latitude !== null) mark(row); }
  }));
  function mark(row) {
    const points = layer._points, last = points[points.length - 1];
    if (!last || last[0] < row.fix_time) { points.push([row.fix_time, row.latitude, row.longitude, row.speed_kmh, row.course_deg, false]); layer.redraw(); }
  }
  load().then(drawTrack);
  loadEvents();
  drawSms();
  const timer = setInterval(load, 15000);
  return () => { disposed = true; clearInterval(timer); stops.forEach((stop) => stop()); };
}

function text(hex) {
  const codes = (hex.match(/../g) || []).map((pair) => parseInt(pair, 16));
  return codes.every((code) => (code >= 32 && code < 127) || code === 13 || code === 10) ? printable(String.fromCharCode(...codes)) : hex;
}
