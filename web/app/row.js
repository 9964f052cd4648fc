// One row of the list: its elements, and how a job is said in them.

import { chip, h, setChip, setText } from "./dom.js";
import { TERMINAL, clean, count, duration, exactTime, outcomeBrief, size, sizeOf, span, ticking, when } from "./format.js";
import { runSeconds } from "./jobs.js";

export class RowView {
  constructor(row) {
    this.pick = h("input", { type: "checkbox", "aria-label": `Select job ${row.id}`, data: { pick: row.id } });
    this.name = h("a", { class: "name", href: `#/jobs/${row.id}` });
    this.more = h("span", { class: "id" });
    this.chip = chip(row.state);
    this.detail = h("div", { role: "cell", class: "c-detail" });
    this.cores = h("div", { role: "cell", class: "c-cores number" });
    this.memory = h("div", { role: "cell", class: "c-memory number" });
    this.duration = h("div", { role: "cell", class: "c-duration number" });
    this.when = h("time", {});
    this.element = h(
      "div",
      { role: "row", class: "row", data: { id: row.id } },
      h("div", { role: "cell", class: "pick" }, h("label", {}, this.pick)),
      h("div", { role: "cell", class: "c-name" }, this.name, this.more),
      h("div", { role: "cell", class: "c-state" }, this.chip),
      this.detail, this.cores, this.memory, this.duration,
      h("div", { role: "cell", class: "c-id number" }, this.when),
    );
  }

  /** Say what is known of the job now; touches only what differs. */
  update(row, { selected, current }) {
    const name = clean(row.name);
    setText(this.name, name);
    if (this.name.title !== name) this.name.title = name;
    setText(this.more, [`#${row.id}`, row.attempt > 1 ? `attempt ${row.attempt}` : "", row.project ? clean(row.project) : ""].filter(Boolean).join(" · "));
    setChip(this.chip, row.state);
    const detail = describe(row);
    setText(this.detail, detail);
    if (this.detail.title !== detail) this.detail.title = detail;
    setText(this.cores, count(row.spec.cores));
    setText(this.memory, memoryOf(row));
    this.showDuration(row);
    setText(this.when, when(row.created_at));
    if (this.when.dateTime !== row.created_at) {
      this.when.dateTime = row.created_at;
      this.when.title = exactTime(row.created_at);
    }
    if (this.pick.checked !== selected) this.pick.checked = selected;
    this.element.classList.toggle("selected", selected);
    this.element.classList.toggle("current", current);
  }

  showDuration(row) {
    const value = runSeconds(row);
    setText(this.duration, value === null ? "" : row.state === "running" ? ticking(value) : duration(value));
  }
}

function describe(row) {
  if (row.cancel_requested && !TERMINAL.has(row.state)) return "is being cancelled …";
  if (TERMINAL.has(row.state)) return outcomeBrief(row);
  if (row.state === "running") return row.spec.walltime ? `walltime ${span(row.spec.walltime)}` : "";
  return clean(row.pending_reason ?? "");
}

function memoryOf(row) {
  const asked = row.spec.memory;
  if (row.rss > 0) return asked > 0 ? sizeOf(row.rss, asked) : size(row.rss);
  return asked > 0 ? size(asked) : "";
}
