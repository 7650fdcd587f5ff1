// The map and the list of devices.  The list has rows for what is seen of it only: a fleet may have thousands.

import { age, empty, h, number, printable, replace } from "./dom.js";
import { fit, fleetLayer, makeMap } from "./map.js";
import { now, on, store } from "./store.js";

const ROW = 56;
const ORDER = ["alarm", "moving", "standing", "nofix", "silent", "never", "disabled"];
export const STATES = { alarm: "Alarm", moving: "Moving", standing: "Standing", nofix: "No fix", silent: "Silent", never: "Never heard", disabled: "Disabled" };
const kept = { search: "", states: new Set(), sort: "state", chosen: null };

export function fleet(root) {
  let shown = [];
  let counts = {};
  let frameAsked = 0;
  const search = h("input", { type: "search", id: "search", placeholder: "Ident, name, tag …   ( / )", value: kept.search, "aria-label": "Search devices", autocomplete: "off", spellcheck: "false" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "States" });
  const sort = h("select", { "aria-label": "Sort by" }, [["state", "By state"], ["name", "By name"], ["seen", "Last heard"]].map(([value, text]) =>
    h("option", { value, selected: kept.sort === value ? "selected" : null }, text)));
  const count = h("p", { class: "note", role: "status" });
  const inner = h("div", { class: "inner" });
  const list = h("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Devices: arrow keys choose, Enter opens" }, inner);
  const mapBox = h("div", { class: "map", role: "application", "aria-label": "Map of the devices; the list beside it has the same" });
  root.append(h("h1", { class: "sr" }, "Devices"),
    h("div", { class: "fleet" },
      h("section", { class: "side", "aria-label": "List" }, h("div", { class: "tools" }, search, sort), chips, count, list),
      mapBox));

  const map = makeMap(mapBox, store.session);
  const layer = fleetLayer(() => shown, () => kept.chosen).addTo(map);
  let fitted = false;

  function choose(ident, { move = true, scroll = true } = {}) {
    kept.chosen = ident;
    const device = store.devices.get(ident);
    if (move && device && device.latitude !== null) map.setView([device.latitude, device.longitude], Math.max(map.getZoom(), 12), { animate: false });
    const at = shown.findIndex((one) => one.ident === ident);
    if (scroll && at >= 0) {
      const top = at * ROW, view = list.clientHeight;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + view) list.scrollTop = top + ROW - view;
    }
    layer.redraw();
    ask();
  }

  function open(ident) { location.hash = `#/device/${encodeURIComponent(ident)}`; }

  function select() {
    const words = kept.search.toLowerCase().split(/\s+/).filter(Boolean);
    counts = {};
    const found = [];
    for (const device of store.devices.values()) {
      if (!words.every((word) => device.text.includes(word))) continue;
      counts[device.state] = (counts[device.state] || 0) + 1;
      if (!kept.states.size || kept.states.has(device.state)) found.push(device);
    }
    const by = (device) => device.name || device.ident;
    if (kept.sort === "seen") found.sort((a, b) => (b.seen || 0) - (a.seen || 0));
    else if (kept.sort === "name") found.sort((a, b) => (by(a) < by(b) ? -1 : 1));
    else found.sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || (by(a) < by(b) ? -1 : 1));
    shown = found;
    inner.style.height = `${shown.length * ROW}px`;
    replace(chips, ORDER.filter((state) => counts[state] || kept.states.has(state)).map((state) =>
      h("button", {
        class: `chip ${state}`, "aria-pressed": String(kept.states.has(state)), onclick: () => {
          if (kept.states.has(state)) kept.states.delete(state); else kept.states.add(state);
          select();
        },
      }, h("span", { class: `dot ${state}`, "aria-hidden": "true" }), `${STATES[state]} ${number(counts[state] || 0)}`)));
    count.textContent = store.loaded ? `${number(shown.length)} of ${number(store.devices.size)} devices` : "Loading …";
    if (!fitted && shown.some((device) => device.latitude !== null)) {
      fitted = true;
      const chosen = kept.chosen && store.devices.get(kept.chosen);
      if (chosen && chosen.latitude !== null) map.setView([chosen.latitude, chosen.longitude], 13, { animate: false });
      else fit(map, shown.filter((device) => device.latitude !== null).map((device) => [device.latitude, device.longitude]));
    }
    layer.redraw();
    ask();
  }

  function ask() {
    if (!frameAsked) frameAsked = requestAnimationFrame(() => { frameAsked = 0; rows(); });
  }

  function rows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    if (!shown.length) {
      replace(inner, empty(!store.loaded ? "Loading …" : store.devices.size ? "None is like that." : "No device has reported yet. Point one at this gateway's port, or try: gateway simulate"));
      inner.style.height = "auto";
      list.removeAttribute("aria-activedescendant");
      return;
    }
    const at = now();
    replace(inner, shown.slice(first, last).map((device, i) => row(device, first + i, at)));
    const active = kept.chosen ? `row-${kept.chosen}` : "";
    if (document.getElementById(active)) list.setAttribute("aria-activedescendant", active);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(device, index, at) {
    const element = h("div", {
      class: "row", role: "option", id: `row-${device.ident}`, "aria-selected": String(device.ident === kept.chosen),
      "aria-setsize": shown.length, "aria-posinset": index + 1,
      onclick: () => choose(device.ident), ondblclick: () => open(device.ident),
    },
    h("span", { class: `dot ${device.state}`, "aria-hidden": "true" }),
    h("span", { class: "who" }, h("strong", {}, printable(device.name || device.ident)),
      h("small", {}, STATES[device.state], device.state === "moving" && device.speed_kmh !== null ? ` ${number(device.speed_kmh)} km/h` : "",
        device.levels.length ? ` · ${printable(device.levels.join(", "))}` : "", device.name ? ` · ${device.ident}` : "")),
    h("span", { class: "facts" },
      h("span", { title: "Age of the last fix" }, device.fix_time === null ? "no fix" : `fix ${age(at - device.fix_time)}`),
      h("small", {}, [
        device.ignition === null ? null : device.ignition ? "ignition on" : "ignition off",
        device.immobilizer ? "relay CUT" : null,
        device.battery_pct !== null ? `${number(device.battery_pct)} %` : null,
        device.transport,
      ].filter(Boolean).join(" · "))));
    element.style.transform = `translateY(${index * ROW}px)`;
    return element;
  }

  list.addEventListener("scroll", ask, { passive: true });
  list.addEventListener("keydown", (event) => {
    const at = shown.findIndex((device) => device.ident === kept.chosen);
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to !== undefined && shown.length) {
      event.preventDefault();
      choose(shown[Math.min(Math.max(to, 0), shown.length - 1)].ident);
    } else if (event.key === "Enter" && at >= 0) {
      open(kept.chosen);
    }
  });
  search.addEventListener("input", () => { kept.search = search.value; list.scrollTop = 0; select(); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); list.focus(); if (shown.length && !shown.some((d) => d.ident === kept.chosen)) choose(shown[0].ident); }
    if (event.key === "Enter" && shown.length) open((shown.find((d) => d.ident === kept.chosen) || shown[0]).ident);
    if (event.key === "Escape") { search.value = kept.search = ""; select(); }
  });
  sort.addEventListener("change", () => { kept.sort = sort.value; select(); });
  map.on("click", (event) => {
    const found = layer.near(event.containerPoint);
    if (found) choose(found.ident, { move: false });
  });
  map.on("dblclick", (event) => { const found = layer.near(event.containerPoint); if (found) open(found.ident); });
  const key = (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); search.select(); }
  };
  document.addEventListener("keydown", key);
  let due = null;
  const stop = on("devices", () => { if (!due) due = setTimeout(() => { due = null; select(); }, store.devices.size > 2000 ? 1000 : 100); });
  const timer = setInterval(ask, 1000);
  const watch = new ResizeObserver(ask);
  watch.observe(list);
  select();
  return () => { stop(); clearInterval(timer); clearTimeout(due); watch.disconnect(); document.removeEventListener("keydown", key); map.remove(); };
}
