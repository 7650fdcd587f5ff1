// A map that needs nobody else: a graticule, tracks and a scale, and tiles where there are some.
// Thousands of devices are drawn on one canvas: an element each would be too slow.

/* global L */

const COLOURS = { alarm: "--bad", moving: "--good", standing: "--accent", nofix: "--warn", silent: "--quiet", never: "--quiet", disabled: "--quiet" };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const Sheet = L.Layer.extend({
  onAdd(map) {
    this._map = map;
    this._canvas = L.DomUtil.create("canvas", "leaflet-zoom-hide sheet");
    this._canvas.setAttribute("aria-hidden", "true");
    (this.options.below ? map.getPane("tilePane") : map.getPane("overlayPane")).appendChild(this._canvas);
    map.on("moveend zoomend resize viewreset", this.redraw, this);
    this.redraw();
  },
  onRemove(map) {
    map.off("moveend zoomend resize viewreset", this.redraw, this);
    this._canvas.remove();
  },
  redraw() {
    if (this._asked) return;
    this._asked = requestAnimationFrame(() => { this._asked = 0; if (this._map) this._paint(); });
    return this;
  },
  _paint() {
    const size = this._map.getSize(), ratio = window.devicePixelRatio || 1, canvas = this._canvas;
    L.DomUtil.setPosition(canvas, this._map.containerPointToLayerPoint([0, 0]));
    canvas.width = size.x * ratio;
    canvas.height = size.y * ratio;
    canvas.style.width = `${size.x}px`;
    canvas.style.height = `${size.y}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    this._draw(context, size);
  },
});

const STEPS = [60, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

const Graticule = Sheet.extend({
  options: { below: true },
  _draw(context, size) {
    const map = this._map, bounds = map.getBounds();
    const span = Math.max(bounds.getEast() - bounds.getWest(), 1e-6);
    const wanted = span / Math.max(size.x / 130, 1);
    const step = STEPS.find((one, i) => one <= wanted || i === STEPS.length - 1) || STEPS[0];
    const digits = Math.max(0, Math.ceil(-Math.log10(step)));
    context.strokeStyle = colour("--line");
    context.fillStyle = colour("--muted");
    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 1;
    const west = Math.ceil(bounds.getWest() / step), east = Math.floor(bounds.getEast() / step);
    for (let i = west; i <= east && i - west < 60; i += 1) {
      const lng = i * step, x = Math.round(map.latLngToContainerPoint([0, lng]).x) + 0.5;
      context.beginPath(); context.moveTo(x, 0); context.lineTo(x, size.y); context.stroke();
      const shown = ((lng + 540) % 360 + 360) % 360 - 180;
      context.fillText(`${Math.abs(shown).toFixed(digits)}° ${shown < 0 ? "W" : "E"}`, x + 4, 14);
    }
    const south = Math.max(Math.ceil(bounds.getSouth() / step), Math.ceil(-85 / step));
    const north = Math.min(Math.floor(bounds.getNorth() / step), Math.floor(85 / step));
    for (let i = south; i <= north && i - south < 60; i += 1) {
      const lat = i * step, y = Math.round(map.latLngToContainerPoint([lat, bounds.getWest()]).y) + 0.5;
      context.beginPath(); context.moveTo(0, y); context.lineTo(size.x, y); context.stroke();
      context.fillText(`${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? "S" : "N"}`, 48, y - 4);
    }
  },
});

const Fleet = Sheet.extend({
  initialize(devices, chosen) {
    this._devices = devices;
    this._chosen = chosen;
    this._places = [];
  },
  _draw(context, size) {
    const map = this._map, chosen = this._chosen(), places = [];
    const palette = Object.fromEntries(Object.entries(COLOURS).map(([state, name]) => [state, colour(name)]));
    const edge = colour("--card");
    let last = null;
    // alarms lie above all others
    const devices = this._devices(), alarms = devices.filter((device) => device.state === "alarm");
    for (const device of [...devices.filter((one) => one.state !== "alarm"), ...alarms]) {
      if (device.latitude === null) continue;
      const { x, y } = map.latLngToContainerPoint([device.latitude, device.longitude]);
      if (x < -8 || y < -8 || x > size.x + 8 || y > size.y + 8) continue;
      places.push({ x, y, device });
      if (device.ident === chosen) { last = { x, y, device }; continue; }
      context.fillStyle = palette[device.state] || palette.silent;
      context.beginPath(); context.arc(x, y, 4.5, 0, 7); context.fill();
      context.strokeStyle = edge; context.lineWidth = 1; context.stroke();
    }
    if (last) {
      context.fillStyle = palette[last.device.state] || palette.silent;
      context.beginPath(); context.arc(last.x, last.y, 8, 0, 7); context.fill();
      context.strokeStyle = colour("--ink"); context.lineWidth = 2.5; context.stroke();
    }
    this._places = places;
  },
  near(point) {
    let found = null, least = 14;
    for (const place of this._places) {
      const far = Math.hypot(place.x - point.x, place.y - point.y);
      if (far < least) { least = far; found = place.device; }
    }
    return found;
  },
});

export const Track = Sheet.extend({
  initialize(points) { this._points = points; },
  _draw(context) {
    const map = this._map;
    let before = null;
    context.lineWidth = 3;
    context.lineJoin = context.lineCap = "round";
    context.strokeStyle = colour("--accent");
    context.beginPath();
    for (const [at, lat, lng] of this._points) {
      const { x, y } = map.latLngToContainerPoint([lat, lng]);
      // half an hour without a report is no line
      if (before === null || at - before > 1800e3) context.moveTo(x, y); else context.lineTo(x, y);
      before = at;
    }
    context.stroke();
    context.fillStyle = colour("--accent");
    if (this._points.length < 2000)
      for (const [, lat, lng] of this._points) {
        const { x, y } = map.latLngToContainerPoint([lat, lng]);
        context.beginPath(); context.arc(x, y, 2.5, 0, 7); context.fill();
      }
  },
});

export function makeMap(element, session, options = {}) {
  const map = L.map(element, { attributionControl: false, zoomAnimation: false, fadeAnimation: false, worldCopyJump: true, maxZoom: 19, minZoom: 1, ...options });
  map.setView([25, 10], 2);
  if (session.tiles) {
    L.tileLayer(session.tiles, { maxZoom: 19 }).addTo(map);
    if (session.attribution) {
      const note = document.createElement("div");
      note.className = "attribution";
      note.textContent = session.attribution;
      element.append(note);
    }
  } else {
    new Graticule().addTo(map);
  }
  L.control.scale({ imperial: false }).addTo(map);
  const themes = window.matchMedia("(prefers-color-scheme: dark)");
  const repaint = () => map.eachLayer((layer) => { if (layer.redraw) layer.redraw(); });
  themes.addEventListener("change", repaint);
  const watch = new ResizeObserver(() => map.invalidateSize({ pan: false }));
  watch.observe(element);
  map.on("unload", () => { watch.disconnect(); themes.removeEventListener("change", repaint); });
  return map;
}

export function fleetLayer(devices, chosen) { return new Fleet(devices, chosen); }

export function fit(map, places) {
  let s = 90, n = -90, w = 180, e = -180;
  for (const [lat, lng] of places) {
    if (lat < s) s = lat;
    if (lat > n) n = lat;
    if (lng < w) w = lng;
    if (lng > e) e = lng;
  }
  if (s <= n) map.fitBounds([[s, w], [n, e]], { padding: [28, 28], maxZoom: 15, animate: false });
}
