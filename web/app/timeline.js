// What happened to a job, as a list. Pure drawing.

import { h } from "./dom.js";
import { clean, duration, exactTime, seconds, when } from "./format.js";

const MOST = 60;
const SHORTEST_GAP = 0.05;

/** The latest of these events, each with the time since the one before. */
export function timeline(events) {
  let before = null;
  return events.slice(-MOST).map((event) => {
    const gap = before ? seconds(before, event.time) : 0;
    before = event.time;
    return h(
      "li",
      { data: { state: event.data?.state ?? "" } },
      h("i"),
      h("div", {}, h("span", {}, eventWords(event)), gap < SHORTEST_GAP ? null : h("span", { class: "muted" }, ` + ${duration(gap)}`)),
      h("time", { class: "muted number", datetime: event.time, title: exactTime(event.time) }, when(event.time)),
    );
  });
}

function eventWords(event) {
  const data = event.data ?? {};
  switch (event.type) {
    case "job.queued":
      return data.attempt > 0 ? "Queued again" : "Queued";
    case "job.held":
      return "Held";
    case "job.released":
      return "Released";
    case "job.submitting":
      return "Handed over";
    case "job.scheduled":
      return "Waiting in the scheduler";
    case "job.running":
      return data.attempt > 1 ? `Started, attempt ${data.attempt}` : "Started";
    case "job.completed":
      return "Completed";
    case "job.failed":
      return data.outcome ? `Failed: ${clean(data.outcome.reason).replaceAll("_", " ")}${data.outcome.exit_code ? ` ${data.outcome.exit_code}` : ""}` : "Failed";
    case "job.cancelled":
      return "Cancelled";
    case "job.retry":
      return "Will be tried again";
    case "job.changed":
      return data.changed ? `Changed: ${clean(data.changed.join(", "))}` : data.cancel_requested || data.state === "running" ? "Cancel requested" : "Changed";
    default:
      return clean(event.type.replace(/^job\./, "").replaceAll("_", " "));
  }
}
