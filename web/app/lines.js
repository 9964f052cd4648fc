// The kept lines of a log: text in, elements out, a bound on both. Knows no service and no buttons.

import { PLAIN, parseLine, styled } from "./ansi.js";
import { h, setText } from "./dom.js";
import { count, plural, size } from "./format.js";

const MOST_LINES = 20000;
export const MOST_CHARACTERS = 5 * 1024 * 1024;
const LONGEST_LINE = 8000;
const BLOCK = 250;

/** The kept lines of one stream and their elements. */
export class Lines {
  element = h("div", { class: "lines" });
  note = h("p", { class: "dropped", hidden: true });
  dropped = 0;
  #skipped = false;
  #lines = [];
  #characters = 0;
  #tail = "";
  #tailLine = null;
  #style = PLAIN;

  constructor() {
    this.element.append(this.note);
  }

  get all() {
    return this.#lines;
  }

  clear() {
    this.element.replaceChildren(this.note);
    this.#lines = [];
    this.#characters = 0;
    this.#tail = "";
    this.#tailLine = null;
    this.#style = PLAIN;
    this.#skipped = true;
    this.say();
  }

  append(text) {
    const pieces = text.split("\n");
    pieces[0] = this.#tail + pieces[0];
    this.#tail = pieces.pop();
    if (this.#tailLine && pieces.length > 0) {
      this.#draw(this.#tailLine, pieces.shift());
      this.#style = this.#tailLine.after;
      this.#tailLine = null;
    }
    // A flood of empty lines must not become a flood of elements.
    const gone = pieces.splice(0, Math.max(0, pieces.length - MOST_LINES));
    this.dropped += gone.length;
    if (gone.length > 0) this.say();
    for (const piece of pieces) this.#style = this.#add(piece).after;
    // Only what a line can show is kept of an unfinished one; after a carriage return, its last part.
    if (this.#tail.length > 2 * LONGEST_LINE) {
      const over = this.#tail.lastIndexOf("\r", this.#tail.length - 2);
      this.#tail = over >= 0 ? this.#tail.slice(over) : this.#tail.slice(0, 2 * LONGEST_LINE);
    }
    if (this.#tailLine) this.#draw(this.#tailLine, this.#tail);
    else if (this.#tail !== "") this.#tailLine = this.#add(this.#tail);
    this.#bound();
  }

  #add(raw) {
    let block = this.element.lastElementChild;
    if (!block?.classList.contains("block") || block.childElementCount >= BLOCK) {
      block = h("div", { class: "block" });
      this.element.append(block);
    }
    const line = { element: h("div"), before: this.#style, after: this.#style, text: "", parts: [], matches: 0 };
    this.#draw(line, raw);
    block.append(line.element);
    this.#lines.push(line);
    return line;
  }

  #draw(line, raw) {
    const { parts, style } = parseLine(raw, line.before);
    this.#characters -= line.text.length;
    line.parts = shorten(parts);
    line.text = line.parts.map((part) => part.text).join("");
    line.after = style;
    line.matches = 0;
    this.#characters += line.text.length;
    drawParts(line, line.parts);
  }

  #bound() {
    let blocks = 0;
    while (this.#lines.length > MOST_LINES || this.#characters > MOST_CHARACTERS) {
      const block = this.element.querySelector(".block");
      if (block === this.element.lastElementChild) break;
      const gone = this.#lines.splice(0, block.childElementCount);
      for (const line of gone) this.#characters -= line.text.length;
      this.dropped += gone.length;
      block.remove();
      blocks += 1;
    }
    if (blocks > 0) this.say();
  }

  say() {
    if (this.dropped === 0 && !this.#skipped) return;
    this.note.hidden = false;
    setText(
      this.note,
      `Earlier output is not shown: this page keeps the last ${count(MOST_LINES)} lines or ${size(MOST_CHARACTERS)}. Download has all of it.`,
    );
  }
}

function shorten(parts) {
  let left = LONGEST_LINE;
  const kept = [];
  let cut = 0;
  for (const part of parts) {
    if (part.text.length <= left) kept.push(part);
    else {
      if (left > 0) kept.push({ ...part, text: part.text.slice(0, left) });
      cut += part.text.length - left;
    }
    left = Math.max(0, left - part.text.length);
  }
  if (cut > 0) kept.push({ text: ` … (${plural(cut, "more character")} in this line)`, style: PLAIN });
  return kept;
}

export function drawParts(line, parts) {
  line.element.replaceChildren(...parts.map((part) => styled(part)));
  // An empty line keeps its height, and a copied log its line breaks.
  if (line.text === "") line.element.append("\u200b");
}

/** Mark `wanted` (lower case) in a line: its parts are cut where the text begins and ends. */
export function drawMatches(line, wanted) {
  const text = line.text.toLowerCase();
  const starts = [];
  for (let at = text.indexOf(wanted); at >= 0 && starts.length < 200; at = text.indexOf(wanted, at + wanted.length)) starts.push(at);
  if (starts.length === 0) {
    if (line.matches > 0) drawParts(line, line.parts);
    line.matches = 0;
    return;
  }
  line.matches = starts.length;
  const nodes = [];
  let position = 0;
  let next = 0;
  for (const part of line.parts) {
    let from = 0;
    while (from < part.text.length) {
      while (next < starts.length && starts[next] + wanted.length <= position + from) next += 1;
      const start = next < starts.length ? Math.max(0, starts[next] - position) : part.text.length;
      const end = next < starts.length ? Math.min(part.text.length, starts[next] + wanted.length - position) : part.text.length;
      const inside = start <= from;
      const to = inside ? end : Math.min(start, part.text.length);
      nodes.push(styled({ text: part.text.slice(from, to), style: part.style }, inside));
      from = to;
    }
    position += part.text.length;
  }
  line.element.replaceChildren(...nodes);
}
