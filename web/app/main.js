// Start, login, the pages by address, keys, and the state of the connection.

import { fill, h, button, setText } from "./dom.js";
import { clean } from "./format.js";
import { HostView, Resources } from "./host.js";
import { JobView } from "./job.js";
import { ListView } from "./list.js";
import { Live } from "./live.js";
import { complain, showHelp, toast } from "./notice.js";
import { bus, exchange, loggedIn, takeCode } from "./session.js";

const place = document.getElementById("view");
const top_ = document.getElementById("top");
const banner = document.getElementById("banner");
const linkState = document.getElementById("link-state");

const live = new Live();
const resources = new Resources();
let view = null;
let kind = null;
let bannerTimer = null;

// -- pages -------------------------------------------------------------------------------

function route() {
  if (location.hash.startsWith("#code=")) {
    begin();
    return;
  }
  if (!loggedIn()) return;
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?", 2);
  const words = new URLSearchParams(query);
  const job = /^\/jobs\/(\d{1,18})$/.exec(path);
  const name = job ? `job ${job[1]}` : path === "/host" ? "host" : "jobs";
  if (name === kind && view?.navigate) {
    view.navigate(words);
    return;
  }
  if (name === kind) return;
  const moved = kind !== null;
  view?.stop();
  kind = name;
  if (job) view = new JobView(job[1]);
  else if (name === "host") view = new HostView(resources);
  else view = new ListView(resources, words);
  fill(place, view.element);
  scrollTo(0, 0);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === (name === "host" ? "host" : "jobs")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  entitle();
  if (moved) place.focus({ preventScroll: true });
}

function entitle() {
  document.title = view ? `${view.title} · Simyard` : "Simyard";
}

// -- login -------------------------------------------------------------------------------

function showLogin(title, text) {
  live.stop();
  resources.stop();
  view?.stop();
  view = null;
  kind = null;
  top_.hidden = true;
  banner.hidden = true;
  document.title = "Simyard";
  const command = h("code", {}, "simyard dashboard");
  fill(
    place,
    h(
      "div",
      { class: "login" },
      h("img", { src: "/icons/simyard.svg", alt: "", width: 64, height: 64 }),
      h("h1", {}, title),
      h("p", {}, text),
      h("p", { class: "login-command" }, h("span", { "aria-hidden": "true" }, "$ "), command),
      h("p", { class: "muted" }, "It opens this page with a code that works once. Nobody else on this machine, and no other web page, can do so."),
    ),
  );
}

async function begin() {
  const code = takeCode();
  if (code !== null) {
    try {
      await exchange(code);
    } catch (error) {
      const gone = error.status !== undefined;
      showLogin(
        gone ? "This link does not work any more" : "The service does not answer",
        gone ? "Each link opens the dashboard once and soon expires. Ask for a new one in a terminal:" : "Start it, and open the dashboard, from a terminal:",
      );
      return;
    }
  }
  if (!loggedIn()) {
    showLogin("Open the dashboard from a terminal", "To see the jobs of this service, run:");
    return;
  }
  top_.hidden = false;
  kind = null;
  live.start();
  resources.start();
  route();
}

bus.addEventListener("login", () => {
  showLogin("The session has ended", "It expired, or the service was started anew. Open the dashboard again from a terminal:");
});

// -- the connection ----------------------------------------------------------------------

bus.addEventListener("offline", () => live.suspect());
live.addEventListener("events", ({ detail }) => view?.events?.(detail));
live.addEventListener("reload", () => view?.reload?.());
live.addEventListener("state", () => showConnection());
addEventListener("online", () => live.hurry());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) live.hurry();
});

let wasOffline = false;

function showConnection() {
  const { state } = live;
  linkState.dataset.state = state;
  setText(linkState.lastElementChild, state);
  clearInterval(bannerTimer);
  if (state === "offline") {
    wasOffline = true;
    const text = h("span");
    const say = () => {
      const left = Math.max(0, Math.ceil((live.retryAt - Date.now()) / 1000));
      setText(text, left > 0 ? `in ${left} s` : "now");
    };
    say();
    bannerTimer = setInterval(say, 500);
    fill(
      banner,
      h("strong", {}, "No connection to the service."), h("span", {}, " What you see may be old; running jobs go on. Trying again ", text, "."),
      button("Try now", { on: () => live.hurry() }),
    );
    banner.hidden = false;
  } else if (state === "live") {
    banner.hidden = true;
    if (wasOffline) {
      wasOffline = false;
      toast("Connected again.");
      resources.soon();
    }
  }
}

resources.addEventListener("change", () => {
  setText(document.getElementById("host-name"), clean(resources.latest.host?.hostname));
});

// -- keys --------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const typing = target instanceof HTMLElement && (target.matches("input:not([type=checkbox]), textarea, select") || target.isContentEditable);
  if (typing) return;
  if (!view) return;
  if (event.key === "/") view.focusSearch?.();
  else if (event.key === "?") showHelp();
  else if (event.key === "g") location.hash = "#/";
  else if (event.key === "h") location.hash = "#/host";
  else if (!view.key?.(event)) return;
  event.preventDefault();
});

document.getElementById("help").addEventListener("click", () => showHelp());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  place.focus();
});
place.addEventListener("titled", entitle);
addEventListener("hashchange", route);
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault();
  else if (event.reason?.status || event.reason?.name === "Error") complain(event.reason);
});

begin();
