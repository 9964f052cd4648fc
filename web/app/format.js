// Facts as people read them: sizes, durations, times, and how a job ended. Pure but for the clock's zone.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
  10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ",
};

export const TERMINAL = new Set(["completed", "failed", "cancelled"]);
export const WAITING = new Set(["held", "queued"]);
export const STATES = ["running", "queued", "held", "submitting", "scheduled", "completed", "failed", "cancelled"];

/** Other systems' words for states, as the service accepts them too. */
export const STATE_WORDS = {
  pending: "queued", submitted: "queued", started: "running", success: "completed",
  complete: "completed", killed: "cancelled", canceled: "cancelled",
};

export function count(number) {
  return Number(number ?? 0).toLocaleString("en-GB");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** "1.2 GiB"; three digits at most. */
export function size(bytes) {
  if (bytes === null || bytes === undefined || Number.isNaN(bytes)) return "–";
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : trim(value)} ${UNITS[unit]}`;
}

/** "1.2 of 8 GiB": both in the unit of the larger one. */
export function sizeOf(part, whole) {
  let unit = 0;
  let scale = 1;
  while (whole / scale >= 1000 && unit < UNITS.length - 1) {
    scale *= 1024;
    unit += 1;
  }
  return `${trim(part / scale)} of ${trim(whole / scale)} ${UNITS[unit]}`;
}

function trim(value) {
  const text = value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Cores as a number with one digit: "1.9". */
export function cores(value) {
  return value >= 9.95 ? value.toFixed(0) : value.toFixed(1);
}

/** "0.42 s", "12 s", "3 min 04 s", "2 h 05 min", "1 d 03 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const value = Math.max(0, seconds);
  if (value < 1) return `${value.toFixed(2)} s`;
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.floor(value);
  if (whole < 60) return `${whole} s`;
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
}

/** A stated duration, such as a walltime: "2 h", not "2 h 00 min". */
export function span(seconds) {
  return duration(seconds).replace(/ 00 (?:s|min|h)$/, "").replace(/\.0+ s$/, " s");
}

/** A running job's duration: whole seconds, so that it ticks evenly. */
export function ticking(seconds) {
  return seconds < 10 ? `${Math.max(0, Math.floor(seconds))} s` : duration(seconds);
}

/** "13:44:57" today, "20 Nov 13:44" this year, "20 Nov 2025" before. */
export function when(text, now = new Date()) {
  if (!text) return "–";
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return "–";
  const two = (number) => String(number).padStart(2, "0");
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}`;
  if (time.toDateString() === now.toDateString()) return `${clock}:${two(time.getSeconds())}`;
  const day = `${time.getDate()} ${MONTHS[time.getMonth()]}`;
  return time.getFullYear() === now.getFullYear() ? `${day} ${clock}` : `${day} ${time.getFullYear()}`;
}

/** The whole time with its zone, for titles. */
export function exactTime(text) {
  if (!text) return "";
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? "" : `${time.toLocaleString()} (${text})`;
}

export function seconds(from, to) {
  return (new Date(to).getTime() - new Date(from).getTime()) / 1000;
}

/**
 * Foreign text on one line, safe to look at: control characters and the marks that reorder
 * text become visible replacements, so a name cannot pretend to be another one.
 */
export function clean(text) {
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]/g, "\ufffd");
}

/** A command as a shell would take it back. */
export function shellCommand(words) {
  return words.map((word) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

function signalName(number) {
  return SIGNALS[number] ? `${SIGNALS[number]} (signal ${number})` : `signal ${number}`;
}

/** How a job ended, in a sentence; the service's own message is said beside it where it has one. */
export function outcomeWords(job) {
  const { outcome, state, spec = {} } = job;
  if (!outcome) return "";
  switch (outcome.reason) {
    case "exit_code":
      if (state === "completed") return "Ended well, with exit code 0.";
      return `Its program ended with exit code ${outcome.exit_code}.`;
    case "signal":
      return `Its program was ended by ${signalName(outcome.signal)}.`;
    case "timeout":
      return spec.walltime
        ? `Stopped: it ran longer than its walltime of ${span(spec.walltime)}.`
        : "Stopped: it ran longer than its walltime.";
    case "out_of_memory":
      return spec.memory
        ? `Stopped: it used more than the ${size(spec.memory)} of memory it had asked for.`
        : "Stopped: the memory of the machine was not enough.";
    case "output_limit":
      return spec.output_limit
        ? `Stopped: it printed more than its limit of ${size(spec.output_limit)}.`
        : "Stopped: it printed more than its limit.";
    case "outputs_missing":
      return "Its program ended well, but files it was expected to write are missing.";
    case "start_failed":
      return "It could not be started.";
    case "node_failure":
      return "The machine it ran on failed.";
    case "submit_rejected":
      return "The scheduler did not take it.";
    case "dependency_failed":
      return "A job it depends on did not end as it has to.";
    case "cancelled":
      return "Cancelled on request.";
    case "interrupted":
      return "The machine was restarted while it ran.";
    case "lost":
      return "It is over, and no record of how is left.";
    default:
      return `Ended: ${clean(outcome.reason)}.`;
  }
}

/** The same in a few words, for one line of the list. */
export function outcomeBrief(job) {
  const { outcome, state } = job;
  if (!outcome) return "";
  switch (outcome.reason) {
    case "exit_code":
      return state === "completed" ? "" : `exit code ${outcome.exit_code}`;
    case "signal":
      return `ended by ${signalName(outcome.signal)}`;
    case "timeout":
      return "over its walltime";
    case "out_of_memory":
      return "over its memory";
    case "output_limit":
      return "printed more than its limit";
    case "outputs_missing":
      return clean(outcome.message) || "expected files are missing";
    case "start_failed":
      return clean(outcome.message) || "could not be started";
    case "cancelled":
      return "on request";
    default:
      return clean(outcome.message) || clean(outcome.reason).replaceAll("_", " ");
  }
}
