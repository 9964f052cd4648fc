// The numbered events over one WebSocket, with reconnection. Knows events, not jobs.

import { Offline, Problem, call, loggedIn, withQuery } from "./session.js";

const DELAYS = [500, 1000, 2000, 4000, 8000, 15000];
const GATHER = 120;
const MOST_GATHERED = 5000;

/**
 * Dispatches "events" (detail: a list of events, gathered over a moment), "reload" (what was
 * missed cannot be replayed: load again), and "state" (detail: {state, retryAt}).
 */
export class Live extends EventTarget {
  state = "connecting";
  retryAt = 0;
  #socket = null;
  #timer = null;
  #gatherTimer = null;
  #gathered = [];
  #seq = null;
  #failures = 0;
  #wanted = false;
  #opening = false;

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#failures = 0;
    this.#say("connecting");
    this.#open();
  }

  stop() {
    this.#wanted = false;
    this.#seq = null;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** Do not wait for the next attempt. */
  hurry() {
    if (!this.#wanted || this.state === "live" || this.#opening || this.#socket) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  /** Another call found nobody there: do not believe the open socket, which may hang. */
  suspect() {
    if (this.state !== "live" || !this.#socket) return;
    const socket = this.#socket;
    this.#socket = null;
    socket.close();
    this.#again();
  }

  async #open() {
    this.#opening = true;
    let ticket;
    try {
      ({ ticket } = await call("POST", "/api/tickets"));
    } catch (error) {
      this.#opening = false;
      if (!(error instanceof Offline || error instanceof Problem)) throw error;
      if (loggedIn()) this.#again();
      return;
    }
    this.#opening = false;
    if (!this.#wanted) return;
    const address = new URL(withQuery("/api/events", { since: this.#seq, ticket }), location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    const socket = new WebSocket(address);
    this.#socket = socket;
    let greeted = false;
    socket.addEventListener("message", (message) => {
      if (socket !== this.#socket) return;
      const event = JSON.parse(message.data);
      if (event.type === "hello") {
        greeted = true;
        // The numbers went backwards: another store answers at this address.
        if (this.#seq === null || event.seq < this.#seq) this.#seq = event.seq;
        this.#failures = 0;
        this.#say("live");
        // What was loaded before this moment may have missed something.
        this.dispatchEvent(new Event("reload"));
      } else if (event.type === "resync") {
        this.#seq = event.seq;
        this.#gathered = [];
        this.dispatchEvent(new Event("reload"));
      } else {
        this.#take(event);
      }
    });
    socket.addEventListener("close", () => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      // Refused before the greeting: our place in the history may be too old to replay.
      if (!greeted) this.#seq = null;
      this.#again();
    });
  }

  #take(event) {
    if (typeof event.seq === "number") {
      if (this.#seq !== null && event.seq <= this.#seq && event.type !== "job.output") return;
      this.#seq = Math.max(this.#seq ?? 0, event.seq);
    }
    this.#gathered.push(event);
    if (this.#gathered.length > MOST_GATHERED) {
      this.#gathered = [];
      this.dispatchEvent(new Event("reload"));
    }
    this.#gatherTimer ??= setTimeout(() => {
      this.#gatherTimer = null;
      const events = this.#gathered;
      this.#gathered = [];
      if (events.length > 0) this.dispatchEvent(new CustomEvent("events", { detail: events }));
    }, GATHER);
  }

  #again() {
    if (!this.#wanted) return;
    const delay = DELAYS[Math.min(this.#failures, DELAYS.length - 1)] * (0.8 + 0.4 * Math.random());
    this.#failures += 1;
    this.retryAt = Date.now() + delay;
    this.#say("offline");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), delay);
  }

  #say(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, retryAt: this.retryAt } }));
  }
}
