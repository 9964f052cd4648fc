// The search box's words, as far as this page has to understand them itself. Pure.
//
// The service reads the words (`state:failed name:sweep* project:x tag:key=value id:17 text`);
// the page knows the states among them, because events may carry a job into or out of the list.

import { STATES, STATE_WORDS } from "./format.js";

const STATE_WORD = /(^|\s)state:(\S*)/gi;

/** The states a search asks for; empty means all, or words that only the service understands. */
export function statesOf(text) {
  const found = new Set();
  for (const [, , words] of text.matchAll(STATE_WORD)) {
    for (const word of words.toLowerCase().replaceAll('"', "").split(",")) {
      const state = STATE_WORDS[word] ?? word;
      if (STATES.includes(state)) found.add(state);
    }
  }
  return [...found];
}

/** What is sent: a field whose value is still being typed says nothing yet. */
export function asQuery(text) {
  return text.replace(/(^|\s)(state|name|project|group|tag|id):(?=\s|$)/gi, " ").replaceAll(/\s+/g, " ").trim();
}

/** The text with its state words replaced by these (or taken out). */
export function withStates(text, states) {
  const rest = text.replaceAll(STATE_WORD, " ").replaceAll(/\s+/g, " ").trim();
  return [states.length > 0 ? `state:${states.join(",")}` : "", rest].filter(Boolean).join(" ");
}
