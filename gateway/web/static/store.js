// What is known of the fleet and of the gateway, kept up to date by server-sent events.

import { get } from "./api.js";

export const store = { session: null, overview: null, devices: new Map(), loaded: false, connected: false, skew: 0 };

const listeners = new Map();
let source = null;
let columns = [];
let again = null;

export function on(name, callback) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(callback);
  return () => listeners.get(name).delete(callback);
}

function tell(name, value) {
  for (const callback of listeners.get(name) || []) callback(value);
}

// The gateway's time, ms: the viewer's clock may be off.
export const now = () => Date.now() + store.skew;

function take(row) {
  const found = {};
  columns.forEach((name, i) => { found[name] = row[i]; });
  found.name = found.alias || found.device_id || "";
  found.text = [found.ident, found.alias, found.device_id, found.tags, found.state, ...(found.levels || [])].filter(Boolean).join(" ").toLowerCase();
  store.devices.set(found.ident, found);
  return found;
}

export async function loadDevices() {
  const answer = await get("/api/devices");
  columns = answer.columns;
  store.skew = answer.now - Date.now();
  store.devices.clear();
  answer.rows.forEach(take);
  store.loaded = true;
  tell("devices", null);
}

export async function loadOverview() {
  store.overview = await get("/api/overview");
  tell("overview", store.overview);
}

export function connect() {
  if (source) return;
  source = new EventSource("/api/stream");
  source.onopen = () => {
    store.connected = true;
    tell("connected", true);
    if (again) { loadDevices().catch(() => {}); loadOverview().catch(() => {}); }
    again = true;
  };
  source.onerror = () => {
    store.connected = false;
    tell("connected", false);
    if (source && source.readyState === EventSource.CLOSED) {  // turned away: the token, or too many
      source = null;
      setTimeout(() => { get("/api/session").then(connect, () => {}); }, 3000);
    }
  };
  source.addEventListener("overview", (event) => {
    const said = JSON.parse(event.data);
    store.skew = said.now - Date.now();
    const before = store.overview;
    store.overview = { ...said, history: before ? before.history : null };
    tell("overview", store.overview);
  });
  source.addEventListener("devices", (event) => {
    const said = JSON.parse(event.data);
    if (columns.length) tell("devices", said.rows.map(take));
  });
  for (const name of ["event", "result", "raw"])
    source.addEventListener(name, (event) => tell(name, JSON.parse(event.data)));
}

export function disconnect() {
  if (source) source.close();
  source = null;
  store.connected = false;
}
