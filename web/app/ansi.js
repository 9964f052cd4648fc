// A program's output made safe to look at: colours pass, every other terminal sequence is taken
// out. Pure; the result is plain text with style names, never markup.

// OSC, DCS, SOS, PM and APC with their whole content; CSI; other escapes; a sequence cut off by
// the end of the line. Each alternative is linear in the text.
const SEQUENCE =
  /\u001b\[([0-9:;]*)m|\u001b\[[0-?]*[ -/]*(?:[@-~]|$)|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u009c|\u001b\\|$|(?=\u001b))|\u009b[0-?]*[ -/]*[@-~]?|\u001b[ -/]*[0-~]?/g;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const REORDERING = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

const CUBE = [0, 95, 135, 175, 215, 255];

export const PLAIN = Object.freeze({ fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false });

/**
 * Cut one line into `[{text, style}]`, beginning with `style`; returns also the style at its end.
 * What a program wrote over with carriage returns (progress bars) is gone, as on a terminal.
 */
export function parseLine(raw, style = PLAIN) {
  const parts = [];
  let text = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
  const over = text.lastIndexOf("\r");
  if (over >= 0) {
    // Colours set in the overwritten part go on.
    for (const match of text.slice(0, over).matchAll(SEQUENCE)) {
      if (match[1] !== undefined) style = rendition(match[1], style);
    }
    text = text.slice(over + 1);
  }
  let from = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    add(parts, text.slice(from, match.index), style);
    from = match.index + match[0].length;
    if (match[1] !== undefined) style = rendition(match[1], style);
  }
  add(parts, text.slice(from), style);
  return { parts, style };
}

function add(parts, text, style) {
  const safe = text.replace(CONTROL, "").replace(REORDERING, "\ufffd");
  if (safe !== "") parts.push({ text: safe, style });
}

/** Select Graphic Rendition (ECMA-48, 8.3.117) applied to a style. */
function rendition(parameters, style) {
  const codes = parameters === "" ? [0] : parameters.slice(0, 200).split(/[;:]/).map(Number);
  let next = { ...style };
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) next = { ...PLAIN };
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes, i + 1);
      next[code === 38 ? "fg" : "bg"] = colour;
      i += used;
    } else if (code === 39) next.fg = null;
    else if (code === 49) next.bg = null;
    else if (code >= 30 && code <= 37) next.fg = code - 30;
    else if (code >= 40 && code <= 47) next.bg = code - 40;
    else if (code >= 90 && code <= 97) next.fg = code - 82;
    else if (code >= 100 && code <= 107) next.bg = code - 92;
  }
  return next;
}

/** Colour number 0–15, or [r, g, b]; and how many codes it took. */
function extended(codes, at) {
  if (codes[at] === 5) {
    const number = Math.min(255, Math.max(0, codes[at + 1] || 0));
    if (number < 16) return [number, 2];
    if (number >= 232) {
      const grey = 8 + 10 * (number - 232);
      return [[grey, grey, grey], 2];
    }
    const index = number - 16;
    return [[CUBE[Math.floor(index / 36)], CUBE[Math.floor(index / 6) % 6], CUBE[index % 6]], 2];
  }
  if (codes[at] === 2) {
    const rgb = [1, 2, 3].map((step) => Math.min(255, Math.max(0, codes[at + step] || 0)));
    return [rgb, 4];
  }
  return [null, 1];
}

/** Make the element of one part; colours beyond the sixteen are set on the element itself. */
export function styled(part, marked = false) {
  const { text, style } = part;
  if (style === PLAIN && !marked) return document.createTextNode(text);
  const element = document.createElement(marked ? "mark" : "span");
  element.textContent = text;
  if (marked) return element;
  const [fg, bg] = style.inverse ? [style.bg ?? "back", style.fg ?? "fore"] : [style.fg, style.bg];
  const names = [];
  for (const name of ["bold", "dim", "italic", "underline"]) if (style[name]) names.push(name);
  paint(element, names, "fg", fg);
  paint(element, names, "bg", bg);
  if (names.length > 0) element.className = names.join(" ");
  return element;
}

function paint(element, names, ground, colour) {
  if (colour === null) return;
  if (Array.isArray(colour)) {
    // Mixed with the text's or the page's colour, so that it can be read in both schemes.
    const rgb = `rgb(${colour.join(",")})`;
    if (ground === "fg") element.style.color = `color-mix(in oklab, ${rgb} 55%, var(--log-text))`;
    else element.style.backgroundColor = `color-mix(in srgb, ${rgb} 30%, transparent)`;
  }
  else names.push(`${ground}-${colour}`);
}
