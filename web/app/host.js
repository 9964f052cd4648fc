// What the machine has, what of it is in use, and what the limits are.

import { bar } from "./chart.js";
import { card, fill, h, icon } from "./dom.js";
import { STATES, clean, cores, count, plural, size, sizeOf } from "./format.js";
import { call } from "./session.js";

const EVERY = 4000;
const SOONEST = 900;
const BAR_ORDER = ["completed", "failed", "cancelled", "running", "submitting", "scheduled", "queued", "held"];

/** The latest `/api/resources`, fetched while somebody looks; dispatches "change". */
export class Resources extends EventTarget {
  latest = null;
  #timer = null;
  #at = 0;
  #busy = false;

  start() {
    this.#now();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Something happened: look soon, but not more often than about once a second. */
  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#now(), Math.max(80, this.#at + SOONEST - Date.now()));
  }

  async #now() {
    if (this.#busy) return;
    clearTimeout(this.#timer);
    this.#busy = true;
    this.#at = Date.now();
    try {
      if (!document.hidden || this.latest === null) {
        this.latest = await call("GET", "/api/resources");
        this.dispatchEvent(new Event("change"));
      }
    } catch {
      // The banner says that nobody answers; what is shown stays.
    }
    this.#busy = false;
    this.#timer = setTimeout(() => this.#now(), EVERY);
  }
}

/** The four tiles above the list. */
export function tiles() {
  const element = h("section", { class: "tiles", "aria-label": "This machine" });
  return {
    element,
    show(resources) {
      if (!resources.host) return;
      const { host, limits, in_use: used, states } = resources;
      const allCores = limits.max_cores ?? host.cpu_count;
      const waiting = (states.queued ?? 0) + (states.held ?? 0);
      const inUse = host.memory_total - host.memory_available;
      fill(
        element,
        tile("jobs", "Jobs", `${count(used.jobs)} running`, waiting > 0 ? `${count(waiting)} waiting` : "none waiting", stateBar(states)),
        tile("cpu", "Cores", `${trimmed(used.cores)} of ${count(allCores)}`, `host at ${Math.round(host.cpu_percent)} %`, bar(used.cores / allCores, "Cores")),
        tile("memory", "Memory", sizeOf(inUse, host.memory_total), used.memory > 0 ? `${size(used.memory)} for jobs` : "none for jobs", bar(inUse / host.memory_total, "Memory", { scarce: true })),
        tile("disk", "Disk", `${size(host.disk_free)} free`, `of ${size(host.disk_total)}`, bar(1 - host.disk_free / host.disk_total, "Disk", { scarce: true })),
      );
    },
  };
}

function trimmed(value) {
  return Number.isInteger(value) ? count(value) : cores(value);
}

/** How all jobs are spread over the states. */
function stateBar(states) {
  const all = STATES.reduce((sum, state) => sum + (states[state] ?? 0), 0);
  const told = STATES.filter((state) => states[state] > 0).map((state) => `${count(states[state])} ${state}`);
  return h(
    "div",
    { class: "bar stacked", role: "img", "aria-label": told.join(", ") || "no jobs", title: told.join(", ") },
    BAR_ORDER.filter((state) => states[state] > 0).map((state) => {
      const part = h("i", { data: { state } });
      part.style.flexGrow = String(Math.max(states[state] / all, 0.012));
      return part;
    }),
  );
}

function tile(symbol, name, main, more, meter) {
  return h(
    "div",
    { class: "tile" },
    h("div", { class: "tile-name" }, icon(symbol), name),
    h("div", { class: "tile-main" }, main),
    h("div", { class: "tile-more muted" }, more),
    meter,
  );
}

/** The page of the host. */
export class HostView {
  element = h("div", { class: "page host-page" });
  #resources;
  #show = () => this.#draw();

  constructor(resources) {
    this.#resources = resources;
    resources.addEventListener("change", this.#show);
    fill(this.element, h("p", { class: "muted" }, "Loading …"));
    if (resources.latest) this.#draw();
    resources.soon();
  }

  get title() {
    return "Host";
  }

  stop() {
    this.#resources.removeEventListener("change", this.#show);
  }

  #draw() {
    const { host, limits, in_use: used, states } = this.#resources.latest;
    if (!host) return;
    const allCores = limits.max_cores ?? host.cpu_count;
    const allMemory = limits.max_memory ?? host.memory_total;
    const licenses = Object.entries(limits.licenses ?? {});
    const gpus = amount(limits.gpus);
    fill(
      this.element,
      h("div", { class: "page-head" }, h("h1", {}, clean(host.hostname))),
      h(
        "div",
        { class: "columns" },
        card(
          "Given to jobs",
          {},
          gauge("Cores", `${trimmed(used.cores)} of ${count(allCores)}`, used.cores / allCores),
          gauge("Memory", allMemory ? sizeOf(used.memory, allMemory) : size(used.memory), used.memory / allMemory),
          gpus > 0 ? gauge("GPUs", `${amount(used.gpus)} of ${gpus}`, amount(used.gpus) / gpus) : null,
          licenses.map(([name, all]) => gauge(`Licence ${clean(name)}`, `${used.licenses?.[name] ?? 0} of ${all}`, (used.licenses?.[name] ?? 0) / all)),
          limits.max_concurrent_jobs ? gauge("Jobs at a time", `${count(used.jobs)} of ${count(limits.max_concurrent_jobs)}`, used.jobs / limits.max_concurrent_jobs) : null,
        ),
        card(
          "The machine now",
          {},
          gauge("Processor", `${Math.round(host.cpu_percent)} % of ${plural(host.cpu_count, "core")}`, host.cpu_percent / 100),
          gauge("Memory", `${sizeOf(host.memory_total - host.memory_available, host.memory_total)}`, 1 - host.memory_available / host.memory_total, { scarce: true }),
          gauge("Disk", `${size(host.disk_free)} free of ${size(host.disk_total)}`, 1 - host.disk_free / host.disk_total, { scarce: true }),
          host.load ? h("p", { class: "muted" }, `Load average: ${host.load.map((value) => value.toFixed(2)).join(", ")} over 1, 5 and 15 minutes.`) : null,
        ),
        card(
          "Jobs",
          {},
          h(
            "dl",
            { class: "facts" },
            STATES.map((state) => [
              h("dt", {}, h("a", { href: `#/?q=${encodeURIComponent(`state:${state}`)}`, class: "chip", data: { state } }, h("i"), h("span", {}, state))),
              h("dd", { class: "number" }, count(states[state] ?? 0)),
            ]),
          ),
        ),
        card(
          "Limits",
          {},
          h(
            "dl",
            { class: "facts" },
            fact("Concurrent jobs", limits.max_concurrent_jobs, count),
            fact("Cores", limits.max_cores, count),
            fact("Memory", limits.max_memory, size),
            fact("Disk to keep free", limits.min_free_disk, size),
            fact("Processor load to start at most", limits.max_cpu_percent, (value) => `${value} %`),
            fact("GPUs", gpus, (value) => (value > 0 ? count(value) : "none")),
            licenses.map(([name, all]) => fact(`Licence ${clean(name)}`, all, count)),
          ),
          h("p", { class: "muted" }, "Change them with ", h("code", {}, "simyard limits"), "."),
        ),
      ),
    );
  }
}

function amount(value) {
  return Array.isArray(value) ? value.length : Number(value ?? 0);
}

function gauge(name, text, share, options) {
  return h("div", { class: "gauge" }, h("div", {}, h("span", {}, name), h("span", { class: "number" }, text)), bar(share, name, options));
}

function fact(name, value, write) {
  const none = value === null || value === undefined;
  return [h("dt", {}, name), h("dd", { class: none ? "muted" : "number" }, none ? "no limit" : write(value))];
}
