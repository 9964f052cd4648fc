// One job's output, live: tabs, follow, wrap, search, download. Keeps a bounded part of it.

import { button, card, fill, h, setText } from "./dom.js";
import { LARGEST_DOWNLOAD, save } from "./files.js";
import { count, plural, size } from "./format.js";
import { Lines, MOST_CHARACTERS, drawMatches, drawParts } from "./lines.js";
import { complain, toast } from "./notice.js";
import { Offline, call, send, withQuery } from "./session.js";

const CHUNK = 1024 * 1024;
const WAIT = 25;

/** The card with a job's output. */
export class LogView {
  element;
  #id;
  #stream = "stdout";
  #streams = {};
  #abort = new AbortController();
  #follow = true;
  #wrap = true;
  #scroller;
  #tabs = {};
  #followButton;
  #wrapButton;
  #searchField;
  #searchCount;
  #current = -1;
  #searchTimer = null;
  #status;
  #wakers = new Set();

  constructor(id) {
    this.#id = id;
    for (const stream of ["stdout", "stderr"]) {
      this.#streams[stream] = { lines: new Lines(), offset: 0, size: 0, complete: false, running: false };
      this.#tabs[stream] = h(
        "button",
        {
          type: "button", role: "tab", id: `tab-${stream}`, "aria-controls": "log", "aria-selected": stream === "stdout",
          tabindex: stream === "stdout" ? 0 : -1,
          on: { click: () => this.show(stream), keydown: (event) => this.#tabKey(event) },
        },
        h("span", {}, stream),
        h("span", { class: "amount" }),
      );
    }
    this.#scroller = h("div", {
      class: "log", id: "log", role: "tabpanel", tabindex: 0, "aria-labelledby": "tab-stdout", "aria-live": "off",
      on: { scroll: () => this.#scrolled() },
    });
    this.#followButton = button("Follow", { icon: "follow", class: "toggle", "aria-pressed": "true", title: "Follow the end (f)", on: () => this.follow() });
    this.#wrapButton = button("Wrap", { icon: "wrap", class: "toggle", "aria-pressed": "true", title: "Wrap long lines (w)", on: () => this.wrap() });
    this.#searchField = h("input", {
      type: "search", class: "small", placeholder: "Find in log", "aria-label": "Find in the log",
      on: { input: () => this.#searchSoon(), keydown: (event) => this.#searchKey(event) },
    });
    this.#searchCount = h("span", { class: "muted found", "aria-live": "polite" });
    this.#status = h("span", { class: "muted" });
    this.element = card(
      null,
      { class: "log-card", "aria-label": "Output" },
      h(
        "header",
        { class: "log-bar" },
        h("div", { role: "tablist", class: "tabs", "aria-label": "Streams" }, this.#tabs.stdout, this.#tabs.stderr),
        h("span", { class: "grow" }),
        h("div", { class: "find" }, this.#searchField, this.#searchCount),
        this.#followButton,
        this.#wrapButton,
        button("Download", { icon: "download", title: "Download the whole stream", on: () => this.#download() }),
      ),
      this.#scroller,
      h("footer", { class: "log-foot" }, this.#status),
    );
    this.#scroller.classList.add("wrapped");
  }

  /** Begin with what a person most likely came for: of a job that failed, its complaints. */
  async start(state) {
    this.show("stdout");
    await this.#glance("stderr");
    if (state === "failed" && this.#streams.stderr.size > 0 && !this.#abort.signal.aborted) this.show("stderr");
  }

  stop() {
    this.#abort.abort();
    clearTimeout(this.#searchTimer);
  }

  /** The connection is back, or an event says there is more: try at once. */
  wake() {
    for (const waker of [...this.#wakers]) waker();
  }

  /** The stream that is not shown may have something by now. */
  glance() {
    for (const stream of ["stdout", "stderr"]) if (stream !== this.#stream) this.#glance(stream);
  }

  show(stream) {
    this.#stream = stream;
    for (const [name, tab] of Object.entries(this.#tabs)) {
      tab.setAttribute("aria-selected", String(name === stream));
      tab.tabIndex = name === stream ? 0 : -1;
    }
    this.#scroller.setAttribute("aria-labelledby", `tab-${stream}`);
    fill(this.#scroller, this.#streams[stream].lines.element);
    this.#sayStatus();
    this.#search();
    if (this.#follow) this.#toEnd();
    this.#read(stream);
  }

  follow(on = !this.#follow) {
    this.#follow = on;
    this.#followButton.setAttribute("aria-pressed", String(on));
    if (on) this.#toEnd();
  }

  wrap(on = !this.#wrap) {
    this.#wrap = on;
    this.#wrapButton.setAttribute("aria-pressed", String(on));
    this.#scroller.classList.toggle("wrapped", on);
    if (this.#follow) this.#toEnd();
  }

  async #read(stream) {
    const own = this.#streams[stream];
    if (own.running || own.complete) return;
    own.running = true;
    const { signal } = this.#abort;
    own.decoder ??= new TextDecoder();
    let failures = 0;
    while (!signal.aborted && this.#stream === stream && !own.complete) {
      try {
        if (own.offset === 0) await this.#glance(stream, true);
        if (own.size - own.offset > MOST_CHARACTERS) this.#skip(own);
        const response = await send(
          "GET",
          withQuery(this.#path(stream), { offset: own.offset, limit: CHUNK, wait: own.offset < own.size ? null : WAIT }),
          { signal, accept: "application/octet-stream", patience: WAIT + 20 },
        );
        const bytes = await response.arrayBuffer();
        failures = 0;
        own.offset = Number(response.headers.get("X-Next-Offset") ?? own.offset + bytes.byteLength);
        own.size = Math.max(own.size, own.offset, Number(response.headers.get("X-Size") ?? 0));
        own.complete = response.headers.get("X-Complete") === "true";
        let text = own.decoder.decode(bytes, { stream: !own.complete });
        if (own.cut && text !== "") {
          // It began somewhere within a line.
          text = text.slice(text.indexOf("\n") + 1);
          own.cut = false;
        }
        if (text !== "") own.lines.append(text);
        if (text !== "" || own.complete) this.#drawn(stream);
        if (bytes.byteLength === 0 && !own.complete) await this.#pause(250, signal);
      } catch (error) {
        if (signal.aborted || error.name === "AbortError") break;
        if (error.status === 401) break;
        if (!(error instanceof Offline) && error.status !== 503) {
          complain(error, "Reading the log");
          if (error.status && error.status < 500) break;
        }
        failures += 1;
        await this.#pause(Math.min(15000, 500 * 2 ** failures), signal);
      }
    }
    own.running = false;
  }

  // More than is kept lies ahead, of an old log or of a fast one: go on where the kept part begins.
  #skip(own) {
    own.offset = own.size - MOST_CHARACTERS;
    own.decoder = new TextDecoder();
    own.cut = true;
    own.lines.clear();
  }

  // The size alone.
  async #glance(stream, first = false) {
    const own = this.#streams[stream];
    try {
      const answer = await call("GET", withQuery(this.#path(stream), { offset: 0, limit: 1 }), { signal: this.#abort.signal });
      own.size = Math.max(own.size, answer.size ?? 0);
      this.#label(stream);
    } catch (error) {
      if (first) throw error;
    }
  }

  #path(stream) {
    return `/api/jobs/${encodeURIComponent(this.#id)}/logs/${stream}`;
  }

  #drawn(stream) {
    this.#label(stream);
    if (stream !== this.#stream) return;
    this.#sayStatus();
    if (this.#searchField.value) this.#searchSoon();
    if (this.#follow) this.#toEnd();
  }

  #label(stream) {
    const { size: bytes } = this.#streams[stream];
    setText(this.#tabs[stream].lastElementChild, bytes > 0 ? size(bytes) : "empty");
  }

  #sayStatus() {
    const own = this.#streams[this.#stream];
    const lines = own.lines.all.length;
    setText(
      this.#status,
      own.complete
        ? lines === 0 ? `Nothing was printed to ${this.#stream}.` : `Complete: ${plural(lines, "line")} shown, ${size(own.size)}.`
        : lines === 0 ? `Nothing on ${this.#stream} yet; waiting for it.` : `Live: ${plural(lines, "line")} shown, ${size(own.size)} so far.`,
    );
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  // Scrolling up stops following, scrolling to the end follows again.
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - clientHeight - scrollTop < 24;
    const up = scrollTop < (this.#lastTop ?? 0) - 1;
    this.#lastTop = scrollTop;
    if (this.#follow && up && !atEnd) this.follow(false);
    else if (!this.#follow && atEnd && !up && scrollHeight > clientHeight) this.follow(true);
  }
  #lastTop = 0;

  #tabKey(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = this.#stream === "stdout" ? "stderr" : "stdout";
    this.show(other);
    this.#tabs[other].focus();
  }

  #searchSoon() {
    clearTimeout(this.#searchTimer);
    this.#searchTimer = setTimeout(() => this.#search(), 150);
  }

  #search() {
    const wanted = this.#searchField.value.toLowerCase();
    const { lines } = this.#streams[this.#stream];
    let found = 0;
    for (const line of lines.all) {
      if (wanted !== "") drawMatches(line, wanted);
      else if (line.matches > 0) {
        line.matches = 0;
        drawParts(line, line.parts);
      }
      found += line.matches;
    }
    if (wanted === "") this.#current = -1;
    setText(this.#searchCount, wanted === "" ? "" : found === 0 ? "not found" : count(found));
  }

  #searchKey(event) {
    if (event.key === "Escape") {
      this.#searchField.value = "";
      this.#search();
      this.#scroller.focus();
      event.stopPropagation();
    }
    if (event.key !== "Enter") return;
    event.preventDefault();
    clearTimeout(this.#searchTimer);
    this.#search();
    const marks = [...this.#scroller.querySelectorAll("mark")];
    if (marks.length === 0) return;
    const step = event.shiftKey ? -1 : 1;
    this.#current = this.#current < 0 ? (event.shiftKey ? marks.length - 1 : 0) : (this.#current + step + marks.length) % marks.length;
    for (const [index, mark] of marks.entries()) mark.classList.toggle("now", index === this.#current);
    this.follow(false);
    marks[this.#current].scrollIntoView({ block: "center" });
    setText(this.#searchCount, `${count(this.#current + 1)} of ${count(marks.length)}`);
  }

  async #download() {
    const stream = this.#stream;
    const parts = [];
    let offset = 0;
    try {
      for (;;) {
        const response = await send("GET", withQuery(this.#path(stream), { offset, limit: CHUNK }), {
          signal: this.#abort.signal, accept: "application/octet-stream",
        });
        const bytes = await response.arrayBuffer();
        parts.push(bytes);
        offset += bytes.byteLength;
        if (offset > LARGEST_DOWNLOAD) {
          toast(`This log is larger than ${size(LARGEST_DOWNLOAD)}. Use the command line: simyard logs ${this.#id} > ${stream}.log`, { kind: "error" });
          return;
        }
        if (bytes.byteLength < CHUNK) break;
      }
      save(new Blob(parts, { type: "application/octet-stream" }), `job-${this.#id}-${stream}.log`);
    } catch (error) {
      complain(error, "Downloading the log");
    }
  }

  #pause(milliseconds, signal) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wakers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.#wakers.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
