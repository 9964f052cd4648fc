// The page with all jobs: search, states, a table of which only the visible rows exist, bulk actions.

import { button, fill, h, icon, setText } from "./dom.js";
import { TERMINAL, WAITING, count, plural } from "./format.js";
import { tiles } from "./host.js";
import { JobList } from "./jobs.js";
import { complain, confirm, toast } from "./notice.js";
import { RowView } from "./row.js";
import { statesOf, withStates } from "./search.js";
import { call, mayChange } from "./session.js";

const SPARE = 8;
const CLOSE_TO_END = 60;
const MOST_AT_ONCE = 2000;
const REFRESH_EVERY = 1200;
const WIDE = matchMedia("(min-width: 760px)");
const TABS = ["running", "queued", "held", "completed", "failed", "cancelled"];
const COLUMNS = [
  ["name", "Job"], ["state", "State"], [null, "Detail"], ["cores", "Cores"], ["memory", "Memory", "Peak of what was asked for"], ["duration", "Duration"], ["id", "Submitted"],
];

export class ListView {
  element;
  title = "Jobs";
  #list = new JobList();
  #resources;
  #tiles = tiles();
  #field;
  #tabs = {};
  #head = {};
  #body;
  #note;
  #foot;
  #bulk;
  #all;
  #elements = new Map();
  #selected = new Set();
  #current = null;
  #lastPicked = null;
  #rowHeight = 0;
  #drawSoon = false;
  #ticker;
  #refreshTimer = null;
  #refreshAt = 0;
  #typing = null;
  #listeners = new AbortController();

  constructor(resources, query) {
    this.#resources = resources;
    this.#build();
    this.#measure();
    const { signal } = this.#listeners;
    this.#list.addEventListener("change", () => this.#draw(), { signal });
    this.#list.addEventListener("error", (event) => this.#failed(event.detail), { signal });
    resources.addEventListener("change", () => this.#showResources(), { signal });
    addEventListener("scroll", () => this.#draw(), { signal, passive: true });
    addEventListener("resize", () => this.#measure(), { signal });
    this.#ticker = setInterval(() => this.#tick(), 1000);
    this.#showResources();
    resources.soon();
    this.#field.value = query.get("q") ?? "";
    this.#open();
  }

  stop() {
    this.#listeners.abort();
    this.#list.close();
    clearInterval(this.#ticker);
    clearTimeout(this.#refreshTimer);
    clearTimeout(this.#typing);
  }

  /** The address changed while this page is shown. */
  navigate(query) {
    const text = query.get("q") ?? "";
    if (text === this.#list.text) return;
    this.#field.value = text;
    this.#open();
  }

  events(events) {
    if (this.#list.apply(events)) this.#refreshSoon();
    this.#resources.soon();
  }

  reload() {
    this.#list.reload();
    this.#resources.soon();
  }

  focusSearch() {
    this.#field.focus();
    this.#field.select();
  }

  /** Keys of this page; true where one was taken. */
  key(event) {
    const ids = this.#list.shown();
    const at = ids.indexOf(this.#current);
    if (event.key === "j" || event.key === "k") {
      const to = at < 0 ? 0 : Math.min(ids.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)));
      if (ids.length > 0) this.#moveTo(to);
      return true;
    }
    if (event.key === "Enter" && at >= 0 && event.target === document.body) {
      location.hash = `#/jobs/${this.#current}`;
      return true;
    }
    if (event.key === "x" && at >= 0) {
      this.#pick(this.#current, !this.#selected.has(this.#current));
      return true;
    }
    if (event.key === "Escape" && this.#selected.size > 0) {
      this.#clearSelection();
      return true;
    }
    return false;
  }

  #build() {
    this.#field = h("input", {
      type: "search", id: "search", placeholder: "Search jobs, or state:failed name:patch*", "aria-label": "Search jobs",
      autocomplete: "off", spellcheck: "false", "aria-describedby": "search-note",
      on: {
        input: () => {
          clearTimeout(this.#typing);
          this.#typing = setTimeout(() => this.#open(), 220);
        },
        keydown: (event) => {
          if (event.key === "Enter") this.#open();
          else if (event.key === "Escape") {
            // Browsers empty a search field on Escape; here it only gives the keys back to the list.
            event.preventDefault();
            this.#field.blur();
          } else return;
          event.stopPropagation();
        },
      },
    });
    const tab = (name) => {
      const number = h("span", { class: "number" });
      const element = h(
        "button",
        { type: "button", class: "tab", "aria-pressed": "false", data: name ? { state: name } : {}, on: { click: (event) => this.#tab(name, event) } },
        name ? h("i") : null, h("span", {}, name ?? "all"), number,
      );
      this.#tabs[name ?? "all"] = { element, number };
      return element;
    };
    this.#all = h("input", { type: "checkbox", "aria-label": "Select all loaded jobs", on: { change: () => this.#pickAll() } });
    const heads = COLUMNS.map(([key, name, what]) => {
      if (!key) return h("div", { role: "columnheader", class: `c-${name.toLowerCase()}` }, name);
      const element = h(
        "div",
        { role: "columnheader", class: `c-${key}`, "aria-sort": "none" },
        h("button", { type: "button", title: `${what ? `${what}. ` : ""}Sort by ${name.toLowerCase()}`, on: { click: () => this.#sort(key) } }, h("span", {}, name), icon("down")),
      );
      this.#head[key] = element;
      return element;
    });
    this.#body = h("div", { class: "rows", role: "rowgroup", on: { click: (event) => this.#clicked(event) } });
    this.#note = h("p", { class: "search-note", id: "search-note", role: "status" });
    this.#foot = h("p", { class: "list-foot muted" });
    this.#bulk = h("div", { class: "bulk", role: "toolbar", "aria-label": "Selected jobs", hidden: true });
    this.element = h(
      "div",
      { class: "page list-page" },
      h("h1", { class: "unseen" }, "Jobs"),
      this.#tiles.element,
      h(
        "div",
        { class: "list-bar" },
        h("div", { class: "tab-row", role: "group", "aria-label": "States" }, tab(null), TABS.map(tab)),
        h("label", { class: "search" }, icon("search"), this.#field, h("kbd", {}, "/")),
      ),
      this.#note,
      h(
        "div",
        { class: "card table", role: "table", "aria-label": "Jobs" },
        h("div", { role: "rowgroup", class: "head" }, h("div", { role: "row", class: "row" }, h("div", { role: "columnheader", class: "pick" }, this.#all), heads)),
        this.#body,
      ),
      this.#foot,
      this.#bulk,
    );
    this.#showSort();
  }

  // -- what is asked ---------------------------------------------------------------------

  #open() {
    clearTimeout(this.#typing);
    const text = this.#field.value.trim();
    const states = statesOf(text);
    for (const [name, { element }] of Object.entries(this.#tabs)) {
      element.setAttribute("aria-pressed", String(name === "all" ? states.length === 0 : states.includes(name)));
    }
    const address = text ? `#/?q=${encodeURIComponent(text)}` : "#/";
    if (location.hash !== address) history.replaceState(null, "", address);
    setText(this.#note, "");
    this.#clearSelection();
    scrollTo(0, 0);
    this.#list.open(text);
  }

  #tab(name, event) {
    const states = statesOf(this.#field.value);
    const several = event.ctrlKey || event.metaKey || event.shiftKey;
    let next = [];
    if (name) {
      if (several) next = states.includes(name) ? states.filter((one) => one !== name) : [...states, name];
      else next = states.length === 1 && states[0] === name ? [] : [name];
    }
    this.#field.value = withStates(this.#field.value, next);
    this.#open();
  }

  #sort(key) {
    this.#list.sortBy(key);
    this.#showSort();
    scrollTo(0, 0);
  }

  #showSort() {
    const { key, down } = this.#list.sort;
    for (const [name, element] of Object.entries(this.#head)) {
      element.setAttribute("aria-sort", name === key ? (down ? "descending" : "ascending") : "none");
    }
  }

  #failed(error) {
    if (error.status === 400 || error.status === 422) setText(this.#note, error.message);
    else if (error.status) complain(error, "Loading the jobs");
  }

  // -- drawing ---------------------------------------------------------------------------

  #measure() {
    this.#rowHeight = WIDE.matches ? 46 : 74;
    this.#draw();
  }

  #draw() {
    if (this.#drawSoon) return;
    this.#drawSoon = true;
    requestAnimationFrame(() => {
      this.#drawSoon = false;
      if (this.element.isConnected) this.#drawRows();
    });
  }

  #visible() {
    const ids = this.#list.shown();
    const above = -this.#body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(above / this.#rowHeight) - SPARE);
    const last = Math.min(ids.length, Math.ceil((above + innerHeight) / this.#rowHeight) + SPARE);
    return { ids, first, last };
  }

  #drawRows() {
    const { ids, first, last } = this.#visible();
    this.#body.style.blockSize = `${ids.length * this.#rowHeight}px`;
    this.#body.parentElement.setAttribute("aria-rowcount", String(ids.length + 1));
    const wanted = new Set(ids.slice(first, last));
    for (const [id, parts] of this.#elements) {
      if (wanted.has(id)) continue;
      // The row with the focus stays until the focus leaves it.
      if (!parts.element.contains(document.activeElement) || !this.#list.rows.has(id)) {
        parts.element.remove();
        this.#elements.delete(id);
      }
    }
    let before = null;
    for (let index = first; index < last; index += 1) {
      const row = this.#list.rows.get(ids[index]);
      if (!row) continue;
      let parts = this.#elements.get(row.id);
      if (!parts) {
        parts = new RowView(row);
        this.#elements.set(row.id, parts);
      }
      const following = before ? before.nextElementSibling : this.#body.firstElementChild;
      if (following !== parts.element) this.#body.insertBefore(parts.element, following);
      before = parts.element;
      const top = `translateY(${index * this.#rowHeight}px)`;
      if (parts.element.style.transform !== top) parts.element.style.transform = top;
      parts.element.setAttribute("aria-rowindex", String(index + 2));
      parts.update(row, { selected: this.#selected.has(row.id), current: row.id === this.#current });
    }
    this.#showFoot();
    if (last > ids.length - CLOSE_TO_END && !this.#list.complete && !this.#list.loading && ids.length > 0) this.#list.more();
    if (ids.slice(first, last).some((id) => this.#needsRefresh(this.#list.rows.get(id)))) this.#refreshSoon();
  }

  #tick() {
    if (document.hidden) return;
    for (const [id, parts] of this.#elements) {
      const row = this.#list.rows.get(id);
      if (row?.state === "running") parts.showDuration(row);
    }
    const { ids, first, last } = this.#visible();
    // The reasons of what waits change with what others do.
    if (ids.slice(first, last).some((id) => WAITING.has(this.#list.rows.get(id)?.state))) this.#refreshSoon(4000);
  }

  #needsRefresh(row) {
    return row !== undefined && (row.rough || (row.state === "queued" && row.pending_reason === null));
  }

  #refreshSoon(spacing = REFRESH_EVERY) {
    if (this.#refreshTimer !== null) return;
    this.#refreshTimer = setTimeout(async () => {
      this.#refreshTimer = null;
      this.#refreshAt = Date.now();
      const { ids, first, last } = this.#visible();
      const wanted = ids.slice(first, last).filter((id) => {
        const row = this.#list.rows.get(id);
        return row.rough || WAITING.has(row.state);
      });
      try {
        await this.#list.refresh(wanted.slice(0, 80));
      } catch {
        // The banner says that nobody answers; the next event tries again.
      }
    }, Math.max(100, this.#refreshAt + spacing - Date.now()));
  }

  #showFoot() {
    const { rows, total, loading, complete, text } = this.#list;
    const shown = rows.size;
    let words = "";
    if (shown === 0 && loading) words = "Loading …";
    else if (shown === 0 && text) words = "No job matches this search.";
    else if (shown === 0) words = "No jobs yet. Submit one: submit_job -- echo hello";
    else if (!complete) words = `${count(shown)} of ${total === null ? "more" : count(total)} jobs loaded${loading ? ", loading more …" : ""}`;
    else words = plural(shown, "job");
    setText(this.#foot, words);
    this.#foot.classList.toggle("alone", shown === 0);
  }

  #showResources() {
    const { latest } = this.#resources;
    if (!latest) return;
    this.#tiles.show(latest);
    let all = 0;
    for (const [state, number] of Object.entries(latest.states)) {
      all += number;
      if (this.#tabs[state]) setText(this.#tabs[state].number, count(number));
    }
    setText(this.#tabs.all.number, count(all));
    const { running = 0 } = latest.states;
    this.title = running > 0 ? `${count(running)} running` : "Jobs";
    this.element.dispatchEvent(new Event("titled", { bubbles: true }));
  }

  // -- rows and selection ----------------------------------------------------------------

  #moveTo(index) {
    const ids = this.#list.shown();
    this.#current = ids[index];
    const top = this.#body.getBoundingClientRect().top + index * this.#rowHeight;
    const above = this.element.querySelector(".head").getBoundingClientRect().bottom;
    if (top < above) scrollBy(0, top - above);
    else if (top + this.#rowHeight > innerHeight - 70) scrollBy(0, top + this.#rowHeight - innerHeight + 70);
    this.#drawRows();
    this.#elements.get(this.#current)?.name.focus({ preventScroll: true });
  }

  #clicked(event) {
    const element = event.target.closest(".row");
    if (!element) return;
    const { id } = element.dataset;
    if (event.target.dataset.pick) {
      const on = event.target.checked;
      if (event.shiftKey && this.#lastPicked) {
        const ids = this.#list.shown();
        const [from, to] = [ids.indexOf(this.#lastPicked), ids.indexOf(id)].sort((a, b) => a - b);
        if (from >= 0) for (const one of ids.slice(from, to + 1)) on ? this.#selected.add(one) : this.#selected.delete(one);
      }
      this.#pick(id, on);
    } else if (!event.target.closest("a, label") && getSelection().isCollapsed) {
      location.hash = `#/jobs/${id}`;
    }
  }

  #pick(id, on) {
    if (on) this.#selected.add(id);
    else this.#selected.delete(id);
    this.#lastPicked = id;
    this.#showBulk();
    this.#draw();
  }

  #pickAll() {
    if (this.#all.checked) for (const id of this.#list.shown()) this.#selected.add(id);
    else this.#selected.clear();
    this.#showBulk();
    this.#draw();
  }

  #clearSelection() {
    this.#selected.clear();
    this.#showBulk();
    this.#draw();
  }

  #showBulk() {
    const number = this.#selected.size;
    this.#all.checked = number > 0 && number === this.#list.rows.size;
    this.#all.indeterminate = number > 0 && !this.#all.checked;
    this.#bulk.hidden = number === 0 || !mayChange();
    if (this.#bulk.hidden) return;
    fill(
      this.#bulk,
      h("strong", {}, `${count(number)} selected`),
      h("span", { class: "grow" }),
      button("Cancel jobs", { icon: "stop", class: "danger", on: () => this.#act("cancel", (row) => !TERMINAL.has(row.state)) }),
      button("Retry", { icon: "retry", on: () => this.#act("retry", (row) => TERMINAL.has(row.state)) }),
      button("Hold", { icon: "pause", on: () => this.#act("hold", (row) => row.state === "queued") }),
      button("Release", { icon: "play", on: () => this.#act("release", (row) => row.state === "held") }),
      h("button", { type: "button", class: "quiet", "aria-label": "Clear the selection", on: { click: () => this.#clearSelection() } }, "×"),
    );
  }

  async #act(verb, suits) {
    const ids = [...this.#selected].filter((id) => this.#list.rows.has(id) && suits(this.#list.rows.get(id)));
    const done = { cancel: "cancelled", retry: "submitted again", hold: "held", release: "released" }[verb];
    if (ids.length === 0) {
      const can = { cancel: "not over yet", retry: "over", hold: "queued", release: "held" }[verb];
      toast(`None of the selected jobs can be ${done}: it takes jobs that are ${can}.`, { kind: "error" });
      return;
    }
    if (verb === "cancel") {
      const sure = await confirm(
        `Cancel ${plural(ids.length, "job")}?`,
        "What runs of them is ended with all its processes; what waits is never started. This cannot be undone, but a cancelled job can be retried.",
        { yes: `Cancel ${plural(ids.length, "job")}` },
      );
      if (!sure) return;
    }
    try {
      const items = [];
      for (let from = 0; from < ids.length; from += MOST_AT_ONCE) {
        items.push(...(await call("POST", `/api/jobs/${verb}`, { body: { ids: ids.slice(from, from + MOST_AT_ONCE) } })).items);
      }
      const refused = items.filter((item) => !item.ok);
      if (refused.length === 0) toast(`${plural(ids.length, "job")} ${done}.`);
      else {
        const [{ id, error }] = refused;
        toast(`${count(ids.length - refused.length)} ${done}, ${count(refused.length)} not. Job ${id}: ${error?.detail ?? error?.message ?? error ?? "refused"}`, { kind: "error" });
      }
      this.#clearSelection();
    } catch (error) {
      complain(error, "The selected jobs");
    }
  }
}
