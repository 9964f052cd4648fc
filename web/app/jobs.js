// The list of jobs as this page knows it: loaded pages, kept current by events. Knows no element.

import { TERMINAL } from "./format.js";
import { asQuery, statesOf } from "./search.js";
import { call, serverNow, withQuery } from "./session.js";

const FIRST_PAGE = 200;
const NEXT_PAGE = 500;
const MOST_SORTED = 50000;
const HEAD_EVERY = 1500;

/** What the list needs of a job; the rest is not kept, so that 100,000 rows stay small. */
function asRow(job) {
  const spec = job.spec ?? {};
  return {
    id: job.id,
    number: Number(job.id),
    name: job.name,
    state: job.state,
    version: job.version ?? 0,
    outcome: job.outcome,
    pending_reason: job.pending_reason,
    cancel_requested: job.cancel_requested,
    created_at: job.created_at,
    started_at: job.started_at,
    finished_at: job.finished_at,
    wall: job.usage?.wall_seconds ?? 0,
    rss: job.usage?.max_rss_bytes ?? 0,
    attempt: job.attempt,
    project: job.project ?? spec.project,
    group: job.group ?? spec.group,
    retry_of: job.retry_of,
    spec: { cores: spec.cores ?? 1, memory: spec.memory ?? 0, gpus: spec.gpus ?? 0, walltime: spec.walltime, output_limit: spec.output_limit },
  };
}

/** Seconds a job has run or ran; null where it never started. */
export function runSeconds(row) {
  if (!row.started_at) return null;
  if (TERMINAL.has(row.state)) {
    if (row.wall > 0) return row.wall;
    return row.finished_at ? (Date.parse(row.finished_at) - Date.parse(row.started_at)) / 1000 : null;
  }
  return row.state === "running" ? (serverNow() - Date.parse(row.started_at)) / 1000 : null;
}

const KEYS = {
  id: (row) => row.number,
  name: (row) => row.name.toLowerCase(),
  state: (row) => row.state,
  cores: (row) => row.spec.cores,
  memory: (row) => row.spec.memory,
  duration: (row) => runSeconds(row) ?? -1,
};

/**
 * Dispatches "change" when rows, order or the loading state changed, "error" (detail: error).
 */
export class JobList extends EventTarget {
  rows = new Map();
  order = [];
  total = null;
  loading = false;
  complete = false;
  text = "";
  states = [];
  sort = { key: "id", down: true };
  #cursor = null;
  #abort = new AbortController();
  #orderStale = false;
  #headTimer = null;
  #headAt = 0;

  /** Start over with these words. */
  async open(text) {
    this.text = text;
    this.states = statesOf(text);
    this.rows.clear();
    this.order = [];
    this.total = null;
    await this.reload();
  }

  /** Load the first page again, keeping what is shown until it is there. */
  async reload() {
    this.#abort.abort();
    this.#abort = new AbortController();
    for (const row of this.rows.values()) row.rough = true;
    await this.#load(true);
    if (this.sort.key !== "id" || !this.sort.down) await this.loadAll();
  }

  close() {
    this.#abort.abort();
    clearTimeout(this.#headTimer);
    this.#headTimer = null;
  }

  async more() {
    if (!this.loading && !this.complete) await this.#load(false);
  }

  /** A sort by anything but "newest first" needs every row. */
  async loadAll() {
    const { signal } = this.#abort;
    while (!this.complete && !signal.aborted && this.rows.size < MOST_SORTED) {
      const before = this.rows.size;
      await this.#load(false);
      if (this.rows.size === before) break;
    }
  }

  sortBy(key) {
    this.sort = this.sort.key === key ? { key, down: !this.sort.down } : { key, down: key === "id" || key === "duration" };
    this.#orderStale = true;
    this.#changed();
    if (this.sort.key !== "id" || !this.sort.down) this.loadAll();
  }

  /** Ids in the order in which they are shown. */
  shown() {
    if (this.#orderStale || (this.sort.key === "duration" && this.order.length !== this.rows.size)) {
      const key = KEYS[this.sort.key];
      const sign = this.sort.down ? -1 : 1;
      const sorted = [...this.rows.values()].map((row) => [key(row), row]);
      sorted.sort(([a, one], [b, other]) => (a < b ? -sign : a > b ? sign : other.number - one.number));
      this.order = sorted.map(([, row]) => row.id);
      this.#orderStale = false;
    }
    return this.order;
  }

  /** What events say is shown at once; what they do not say is fetched soon after. */
  apply(events) {
    let touched = false;
    for (const event of events) {
      if (!event.type.startsWith("job.") || event.type === "job.output") continue;
      const id = String(event.job_id);
      const row = this.rows.get(id);
      if (event.type === "job.deleted") {
        touched = this.#remove(id) || touched;
        continue;
      }
      const { state, version, outcome, name, cancel_requested: cancelling } = event.data ?? {};
      if (!row) {
        this.#soon();
        continue;
      }
      if (version !== undefined && version < row.version) continue;
      touched = true;
      if (version !== undefined) row.version = version;
      if (name) row.name = name;
      if (outcome !== undefined) row.outcome = outcome;
      if (cancelling !== undefined) row.cancel_requested = cancelling;
      if (state && state !== row.state) {
        row.state = state;
        if (state === "running") row.started_at = event.time;
        if (TERMINAL.has(state)) row.finished_at ??= event.time;
        row.pending_reason = null;
        if (this.states.length > 0 && !this.states.includes(state)) this.#remove(id);
        if (this.sort.key === "state" || this.sort.key === "duration") this.#orderStale = true;
      }
      row.rough = true;
    }
    if (touched) this.#changed();
    return touched;
  }

  /**
   * Fetch the rows that are looked at: what events did not say of them, and the pending reasons,
   * which the service derives when it is asked.
   */
  async refresh(ids) {
    if (ids.length === 0) return;
    const { signal } = this.#abort;
    const page = await call("GET", withQuery("/api/jobs", { q: `id:${ids.join(",")}`, limit: ids.length }), { signal });
    let touched = false;
    const gone = new Set(ids);
    for (const job of page.items) {
      gone.delete(job.id);
      if (this.states.length > 0 && !this.states.includes(job.state)) {
        touched = this.#remove(job.id) || touched;
        continue;
      }
      const row = this.rows.get(job.id);
      if (!row || (job.version ?? 0) < row.version) continue;
      row.rough = false;
      touched = true;
      Object.assign(row, asRow(job));
    }
    for (const id of gone) touched = this.#remove(id) || touched;
    if (touched) this.#changed();
  }

  // New jobs, and jobs that now match the search: look at the first page again, at most so often.
  #soon() {
    if (this.#headTimer !== null) return;
    const wait = Math.max(60, this.#headAt + HEAD_EVERY - Date.now());
    this.#headTimer = setTimeout(async () => {
      this.#headTimer = null;
      this.#headAt = Date.now();
      if (this.loading) this.#soon();
      else await this.#load(true, true);
    }, wait);
  }

  async #load(first, quietly = false) {
    const { signal } = this.#abort;
    this.loading = true;
    if (!quietly) this.#changed();
    try {
      const page = await call(
        "GET",
        withQuery("/api/jobs", {
          q: asQuery(this.text),
          limit: first ? FIRST_PAGE : NEXT_PAGE,
          cursor: first ? null : this.#cursor,
          count: first ? 1 : null,
        }),
        { signal },
      );
      if (signal.aborted) return;
      this.#merge(page, first);
    } catch (error) {
      if (error.name !== "AbortError") this.dispatchEvent(new CustomEvent("error", { detail: error }));
    } finally {
      if (!signal.aborted) {
        this.loading = false;
        this.#changed();
      }
    }
  }

  #merge(page, first) {
    if (first) {
      // What lies within the page's range but not in it has left the list.
      const there = new Set(page.items.map((job) => job.id));
      const lowest = page.next_cursor && page.items.length > 0 ? Number(page.items.at(-1).id) : -1;
      for (const row of [...this.rows.values()]) {
        if (row.number >= lowest && !there.has(row.id)) this.rows.delete(row.id);
      }
      this.total = page.total ?? this.total;
    }
    const known = this.rows.size;
    for (const job of page.items) this.rows.set(job.id, asRow(job));
    this.#orderStale = true;
    // The first page read again says nothing about where the loaded part ends.
    if (!first || known === 0 || this.#cursor === null) {
      if (!(first && this.complete && known > 0)) {
        this.#cursor = page.next_cursor ?? null;
        this.complete = this.#cursor === null;
      }
    }
  }

  #remove(id) {
    if (!this.rows.delete(id)) return false;
    if (this.total !== null) this.total -= 1;
    this.#orderStale = true;
    return true;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
