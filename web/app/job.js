// One job's page: what it is, where it stands, what it printed, what it used.

import { chart } from "./chart.js";
import { button, card, chip, fill, h, icon, setChip, setText } from "./dom.js";
import {
  TERMINAL, WAITING, clean, cores, count, duration, outcomeWords, plural, seconds, shellCommand, size, sizeOf, span, ticking,
} from "./format.js";
import { FileList } from "./files.js";
import { LogView } from "./log.js";
import { complain, confirm, toast } from "./notice.js";
import { call, mayChange, serverNow } from "./session.js";
import { timeline } from "./timeline.js";

const USAGE_EVERY = 3000;

export class JobView {
  element = h("div", { class: "page job-page" });
  title;
  #id;
  #job = null;
  #log;
  #abort = new AbortController();
  #parts = {};
  #ticker = null;
  #usageTimer = null;
  #loadTimer = null;
  #loading = false;
  #again = false;

  constructor(id) {
    this.#id = id;
    this.title = `Job ${id}`;
    this.#log = new LogView(id);
    fill(this.element, h("p", { class: "muted" }, "Loading …"));
    this.#load().then(() => this.#job && this.#log.start(this.#job.state));
    this.#ticker = setInterval(() => this.#tick(), 1000);
  }

  stop() {
    this.#abort.abort();
    this.#log.stop();
    clearInterval(this.#ticker);
    clearTimeout(this.#usageTimer);
    clearTimeout(this.#loadTimer);
  }

  events(events) {
    let mine = false;
    for (const event of events) {
      if (String(event.job_id) !== this.#id) {
        // Others give resources back: why this one waits may have changed.
        if (this.#job && WAITING.has(this.#job.state) && event.type.startsWith("job.")) mine = true;
      } else {
        mine = true;
      }
    }
    if (mine) this.#loadSoon();
  }

  reload() {
    this.#log.wake();
    this.#loadSoon();
  }

  key(event) {
    if (event.key === "f") this.#log.follow();
    else if (event.key === "w") this.#log.wrap();
    else return false;
    return true;
  }

  focusSearch() {
    const field = this.element.querySelector(".find input");
    field?.focus();
    field?.select();
  }

  #path(rest = "") {
    return `/api/jobs/${encodeURIComponent(this.#id)}${rest}`;
  }

  #loadSoon() {
    clearTimeout(this.#loadTimer);
    this.#loadTimer = setTimeout(() => this.#load(), 60);
  }

  async #load() {
    if (this.#loading) {
      this.#again = true;
      return;
    }
    this.#loading = true;
    const { signal } = this.#abort;
    try {
      const job = await call("GET", this.#path(), { signal });
      const first = this.#job === null;
      const before = this.#job?.state;
      this.#job = job;
      if (first) this.#build();
      this.#show();
      this.#loadEvents();
      if (first || before !== job.state) {
        this.#parts.files.load();
        this.#loadUsage();
        this.#loadScript();
        if (TERMINAL.has(job.state)) this.#log.glance();
        this.#log.wake();
      }
    } catch (error) {
      if (error.status === 404 || error.status === 400) this.#missing(error);
      else complain(error, "Loading the job");
    }
    this.#loading = false;
    if (this.#again) {
      this.#again = false;
      this.#loadSoon();
    }
  }

  #missing(error) {
    this.#log.stop();
    fill(
      this.element,
      h("div", { class: "empty-page" }, h("h1", {}, "No such job"), h("p", {}, clean(error.message)), h("p", {}, h("a", { href: "#/" }, "To the list of jobs"))),
    );
  }

  // -- the page --------------------------------------------------------------------------

  #build() {
    const parts = this.#parts;
    parts.name = h("h1", {});
    parts.chip = chip(this.#job.state);
    parts.outcome = h("p", { class: "outcome", "aria-live": "polite" });
    parts.facts = h("p", { class: "job-facts muted" });
    parts.actions = h("div", { class: "actions" });
    parts.command = h("code", { class: "command" });
    parts.commandMore = h("div", { class: "command-more" });
    parts.resources = h("dl", { class: "facts" });
    parts.charts = h("div", { class: "charts" });
    parts.timeline = h("ol", { class: "timeline" });
    parts.files = new FileList(this.#id, this.#abort.signal);
    parts.copy = button("Copy", { icon: "copy", class: "quiet", on: () => this.#copy() });
    fill(
      this.element,
      h("a", { class: "back", href: "#/" }, icon("back"), "Jobs"),
      h(
        "div",
        { class: "page-head" },
        h("div", { class: "job-title" }, h("div", { class: "job-name" }, parts.name, parts.chip), parts.outcome, parts.facts),
        parts.actions,
      ),
      h(
        "div",
        { class: "job-columns" },
        h(
          "div",
          { class: "job-main" },
          card("Command", { class: "command-card", actions: parts.copy }, parts.command, parts.commandMore),
          this.#log.element,
        ),
        h(
          "div",
          { class: "job-side" },
          card("Resources", {}, parts.resources, parts.charts),
          card("Timeline", {}, parts.timeline),
          card("Files", { actions: button("Refresh", { icon: "retry", class: "quiet", on: () => parts.files.load() }) }, parts.files.element),
        ),
      ),
    );
  }

  #show() {
    const job = this.#job;
    const parts = this.#parts;
    const over = TERMINAL.has(job.state);
    this.title = `${clean(job.name)}: ${job.state}`;
    this.element.dispatchEvent(new Event("titled", { bubbles: true }));
    setText(parts.name, clean(job.name));
    setChip(parts.chip, job.state);
    parts.outcome.dataset.state = job.state;
    fill(parts.outcome, this.#standing());
    fill(parts.facts, this.#facts());
    const sure = job.cancel_requested && !over;
    const offered = mayChange();
    fill(
      parts.actions,
      offered && job.state === "queued" ? button("Hold", { icon: "pause", on: () => this.#act("hold") }) : null,
      offered && job.state === "held" ? button("Release", { icon: "play", class: "main", on: () => this.#act("release") }) : null,
      offered && over ? button("Retry", { icon: "retry", class: "main", on: () => this.#retry() }) : null,
      !offered || over ? null : button(sure ? "Cancelling …" : "Cancel", { icon: "stop", class: "danger", disabled: sure, on: () => this.#cancel() }),
    );
    this.#showResources();
  }

  /** Why it waits, since when it runs, or how it ended. */
  #standing() {
    const job = this.#job;
    if (TERMINAL.has(job.state)) {
      const words = outcomeWords(job);
      const message = clean(job.outcome?.message);
      // The service's sentence is said too where it knows more than the kind of ending.
      const more = message && !/^(exit(ed with)? code \d+\.?|cancelled\.?|completed\.?)$/i.test(message) ? message : "";
      return [words, more && more !== words ? ` ${more.charAt(0).toUpperCase()}${more.slice(1)}${/[.!?]$/.test(more) ? "" : "."}` : null];
    }
    if (job.cancel_requested) return "It is being cancelled: its processes are asked to end, then made to.";
    if (job.state === "running") return null;
    if (!job.pending_reason) return null;
    const reason = clean(job.pending_reason);
    return [reason.charAt(0).toUpperCase() + reason.slice(1), job.queue_position ? ` (place ${count(job.queue_position)} in the queue)` : null];
  }

  #facts() {
    const job = this.#job;
    const facts = [`#${job.id}`];
    this.#parts.running = null;
    if (job.state === "running") {
      this.#parts.running = h("span", { class: "number" });
      facts.push(h("span", {}, "running for ", this.#parts.running));
      this.#tick();
    } else if (TERMINAL.has(job.state) && job.started_at) {
      facts.push(`ran for ${duration(this.#ran())}`);
    }
    if (job.host && job.started_at) facts.push(`on ${clean(job.host)}`);
    if (job.scheduler && !["auto", "local"].includes(job.scheduler)) facts.push(`by ${clean(job.scheduler)}`);
    if (job.native_id) facts.push(`process ${clean(job.native_id)}`);
    if (job.attempt > 1) facts.push(`attempt ${job.attempt}`);
    if (job.priority) facts.push(`priority ${job.priority}`);
    if (job.project) facts.push(h("a", { href: `#/?q=${encodeURIComponent(`project:${job.project}`)}` }, `project ${clean(job.project)}`));
    if (job.group) facts.push(h("a", { href: `#/?q=${encodeURIComponent(`group:${job.group}`)}` }, `group ${clean(job.group)}`));
    if (job.retry_of) facts.push(h("a", { href: `#/jobs/${job.retry_of}` }, `a retry of job ${job.retry_of}`));
    for (const one of job.spec.depends_on ?? []) facts.push(h("a", { href: `#/jobs/${one.job}` }, `after job ${one.job}`));
    for (const [key, value] of Object.entries(job.tags ?? {})) facts.push(h("span", { class: "tag" }, clean(value === "" ? key : `${key}: ${value}`)));
    return facts.flatMap((fact, index) => (index === 0 ? [fact] : [h("span", { class: "dot", "aria-hidden": "true" }, " · "), fact]));
  }

  #ran() {
    const { usage, started_at: from, finished_at: to } = this.#job;
    return usage?.wall_seconds > 0 ? usage.wall_seconds : to ? seconds(from, to) : 0;
  }

  #tick() {
    const { running } = this.#parts;
    if (!running || !this.#job?.started_at) return;
    const spent = (serverNow() - Date.parse(this.#job.started_at)) / 1000;
    const { walltime } = this.#job.spec;
    setText(running, walltime ? `${ticking(spent)} of at most ${span(walltime)}` : ticking(spent));
  }

  #showResources() {
    const { spec, usage, state } = this.#job;
    const over = TERMINAL.has(state);
    const samples = this.#parts.samples ?? [];
    const peak = Math.max(usage?.max_rss_bytes ?? 0, ...samples.map((sample) => sample.rss));
    const rows = [];
    const add = (name, value, more) => rows.push(h("dt", {}, name), h("dd", {}, value, more ? h("span", { class: "muted" }, more) : null));
    let busy = null;
    if (over && usage?.wall_seconds > 0) busy = usage.cpu_seconds / usage.wall_seconds;
    add("Cores", plural(spec.cores ?? 1, "core"), busy === null ? null : `${cores(busy)} busy on average`);
    add("Memory", spec.memory ? size(spec.memory) : "not stated", peak > 0 ? (spec.memory ? `peak was ${sizeOf(peak, spec.memory)}` : `peak was ${size(peak)}`) : null);
    if (spec.gpus) add("GPUs", plural(spec.gpus, "GPU"));
    if (spec.disk) add("Disk", size(spec.disk));
    for (const [name, number] of Object.entries(spec.licenses ?? {})) add("Licences", `${number} of ${clean(name)}`);
    add("Walltime", spec.walltime ? span(spec.walltime) : "no limit", over && this.#job.started_at ? `took ${duration(this.#ran())}` : null);
    if (over && usage?.cpu_seconds > 0) add("Processor time", duration(usage.cpu_seconds));
    fill(this.#parts.resources, rows);
  }

  // -- its details -----------------------------------------------------------------------

  async #loadEvents() {
    try {
      const { items } = await call("GET", this.#path("/events"), { signal: this.#abort.signal });
      fill(this.#parts.timeline, timeline(items));
    } catch (error) {
      complain(error, "Loading the timeline");
    }
  }

  async #loadScript() {
    try {
      const told = await call("GET", this.#path("/script"), { signal: this.#abort.signal });
      const { argv = [], script, setup = [], workdir, env = {}, tag } = told;
      const text = script ? script.trimEnd() : shellCommand(argv);
      this.#parts.commandText = text;
      setText(this.#parts.command, visible(text));
      this.#parts.command.classList.toggle("script", Boolean(script));
      const names = Object.keys(env).sort();
      const open = this.#parts.commandMore.querySelector("details")?.open ?? false;
      fill(
        this.#parts.commandMore,
        h(
          "dl",
          { class: "facts left" },
          script && argv.length > 0 ? [h("dt", {}, "Run by"), h("dd", {}, h("code", {}, visible(shellCommand(argv))))] : null,
          setup.length > 0 ? [h("dt", {}, "After"), h("dd", {}, setup.map((line) => h("div", {}, h("code", {}, visible(line)))))] : null,
          h("dt", {}, "In"), h("dd", {}, h("code", {}, clean(workdir))),
        ),
        h(
          "details",
          { open },
          h("summary", {}, `Environment (${plural(names.length, "variable")})`),
          h("div", { class: "env" }, names.map((name) => h("div", {}, h("code", {}, clean(name)), h("code", {}, clean(env[name]))))),
          tag ? h("p", { class: "muted" }, "Mark on all its processes: ", h("code", {}, clean(tag))) : null,
        ),
      );
    } catch (error) {
      complain(error, "Loading the command");
    }
  }

  async #loadUsage() {
    clearTimeout(this.#usageTimer);
    try {
      const { samples } = await call("GET", this.#path("/usage"), { signal: this.#abort.signal });
      this.#parts.samples = samples;
      this.#log.glance();
      this.#drawUsage(samples);
    } catch (error) {
      if (error.status && error.status !== 404) complain(error, "Loading the usage");
    }
    if (this.#job && !TERMINAL.has(this.#job.state) && !this.#abort.signal.aborted) {
      this.#usageTimer = setTimeout(() => (document.hidden || this.#job.state !== "running" ? this.#waitUsage() : this.#loadUsage()), USAGE_EVERY);
    }
  }

  #waitUsage() {
    this.#usageTimer = setTimeout(() => this.#loadUsage(), USAGE_EVERY);
  }

  #drawUsage(samples) {
    this.#showResources();
    if (samples.length < 2) {
      fill(this.#parts.charts, this.#job.state === "running" ? h("p", { class: "muted" }, "Its curves appear after a few seconds.") : null);
      return;
    }
    const busy = [];
    for (let i = 1; i < samples.length; i += 1) {
      const time = samples[i].t - samples[i - 1].t;
      if (time > 0) busy.push([samples[i].t, Math.max(0, (samples[i].cpu - samples[i - 1].cpu) / time)]);
    }
    const memory = samples.map((sample) => [sample.t, sample.rss]);
    const at = (time) => ticking(time);
    const { spec } = this.#job;
    fill(
      this.#parts.charts,
      busy.length > 1 ? chart({ name: "Cores busy", points: busy, limit: spec.cores ?? 1, label: (value) => cores(value), at }) : null,
      chart({ name: "Memory", points: memory, limit: spec.memory ?? 0, label: size, at }),
    );
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#parts.commandText ?? "");
      toast("Copied.");
    } catch {
      toast("The browser did not let the page copy; select the text instead.", { kind: "error" });
    }
  }

  // -- what can be done to it ------------------------------------------------------------

  async #cancel() {
    const running = this.#job.state === "running";
    const sure = await confirm(
      `Cancel job ${this.#id}?`,
      running
        ? `“${this.#job.name}” is ended with all its processes. What it has written so far is kept.`
        : `“${this.#job.name}” will not be started.`,
      { yes: "Cancel the job" },
    );
    if (sure) await this.#act("cancel");
  }

  async #retry() {
    try {
      const job = await call("POST", this.#path("/retry"));
      toast(`Job ${job.id} is a new try of job ${this.#id}.`);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      complain(error, "Retrying");
    }
  }

  async #act(verb) {
    try {
      await call("POST", this.#path(`/${verb}`));
      this.#loadSoon();
    } catch (error) {
      complain(error);
      this.#loadSoon();
    }
  }
}

/** Foreign text of several lines: the same replacements as in `clean`, line breaks and tabs kept. */
function visible(text) {
  return text.split("\n").map((line) => line.split("\t").map(clean).join("\t")).join("\n");
}
