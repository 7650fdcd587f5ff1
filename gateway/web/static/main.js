// The page: its token, its frame, and which view is shown.

import { get, post, whenLocked, Refused } from "./api.js";
import { connect, disconnect, loadDevices, loadOverview, on, store } from "./store.js";
import { h, notice, printable, replace } from "./dom.js";
import { overview } from "./overview.js";
import { fleet } from "./fleet.js";
import { device } from "./device.js";
import { strangers } from "./strangers.js";

const top = document.getElementById("top");
const main = document.getElementById("main");
const VIEWS = [["", "Overview", overview], ["map", "Map", fleet], ["unknown", "Unrecognised", strangers]];
let leave = null;

function frame() {
  const place = location.hash.replace(/^#\/?/, "").split("/")[0];
  const state = h("span", { class: "state", id: "state" });
  replace(top,
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }),
      h("span", {}, printable(store.session.instance))),
    h("nav", { "aria-label": "Views" }, VIEWS.map(([name, title]) =>
      h("a", { href: `#/${name}`, "aria-current": place === name || (name === "map" && place === "device") ? "page" : null }, title))),
    state,
    h("button", { class: "quiet", onclick: logout }, "Log out"));
  tellState();
}

function tellState() {
  const state = document.getElementById("state");
  if (!state) return;
  const said = store.overview;
  const [kind, text] = !store.connected ? ["bad", "Not connected"]
    : !said ? ["", "…"]
      : said.ready ? ["good", "Ready"] : ["bad", said.problems[0] || "Not ready"];
  state.className = `state ${kind}`;
  replace(state, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "words" }, printable(text)));
}

async function show() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (leave) leave();
  leave = null;
  frame();
  main.className = `view-${parts[0] || "overview"}`;
  main.replaceChildren();
  window.scrollTo(0, 0);
  const view = parts[0] === "device" && parts[1] ? (root) => device(root, parts[1])
    : (VIEWS.find(([name]) => name === parts[0]) || VIEWS[0])[2];
  const title = parts[0] === "device" ? parts[1] : (VIEWS.find(([name]) => name === parts[0]) || VIEWS[0])[1];
  document.title = `${printable(title)} – ${store.session.instance}`;
  leave = view(main) || null;
}

async function logout() {
  disconnect();
  await post("/api/logout").catch(() => {});
  locked();
}

function locked() {
  disconnect();
  if (leave) leave();
  leave = null;
  store.session = null;
  top.replaceChildren();
  main.className = "view-login";
  const field = h("input", { id: "token", type: "password", autocomplete: "current-password", spellcheck: "false", required: true });
  const error = h("p", { class: "error", role: "alert" });
  replace(main, h("form", {
    class: "card", onsubmit: async (event) => {
      event.preventDefault();
      try {
        await enter(field.value.trim());
      } catch (problem) {
        error.textContent = problem.message;
        field.select();
      }
    },
  },
  h("img", { src: "/static/icon.svg", alt: "", width: 40, height: 40 }),
  h("h1", {}, "Gateway"),
  h("p", {}, "Run ", h("code", {}, "gateway page"), " on its machine: it prints this page's address with the token."),
  h("label", { for: "token" }, "Token"), field, error,
  h("button", { class: "main" }, "Log in")));
  field.focus();
}

async function enter(token) {
  store.session = await post("/api/login", { token });
  begin();
}

function begin() {
  connect();
  loadOverview().catch(() => {});
  loadDevices().catch((problem) => notice(problem.message, "bad"));
  show();
}

whenLocked(() => { if (store.session) locked(); });
on("overview", tellState);
on("connected", tellState);
window.addEventListener("hashchange", () => {
  const token = /^#token=(.+)$/.exec(location.hash);
  if (token) start(); else if (store.session) show();
});

async function start() {
  const token = /^#token=(.+)$/.exec(location.hash);
  if (token) {
    history.replaceState(null, "", "#/");  // it is not to stay in the address
    try {
      await enter(decodeURIComponent(token[1]));
      return;
    } catch (problem) {
      locked();
      notice(problem.message, "bad");
      return;
    }
  }
  try {
    store.session = await get("/api/session");
    begin();
  } catch (problem) {
    locked();
    if (problem instanceof Refused && problem.status !== 401) notice(problem.message, "bad");
  }
}

start();
