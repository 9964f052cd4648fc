// Building elements. Text only ever becomes a text node: there is no way from here to markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: `h("a", {class: "x", href: "#/", on: {click}}, "text", child, …)`.
 * Children that are null, undefined or false are left out.
 */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (name === "data") {
      Object.assign(element.dataset, value);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...present(children));
  return element;
}

/** Replace all children of `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Set the text only where it differs: most ticks change nothing, and a selection survives. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** One of our icons, drawn in the colour of the text around it. */
export function icon(name) {
  return h("span", { class: `icon icon-${name}`, "aria-hidden": "true" });
}

/** A button with an icon and a text. */
export function button(label, { icon: symbol, on, ...properties } = {}) {
  return h(
    "button",
    { type: "button", ...properties, on: on ? { click: on } : {} },
    symbol ? icon(symbol) : null,
    h("span", {}, label),
  );
}

/** The coloured chip of a state: colour, shape and word say the same. */
export function chip(state) {
  return h("span", { class: "chip", data: { state } }, h("i"), h("span", {}, state));
}

export function setChip(element, state) {
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  element.lastElementChild.textContent = state;
}

/** A titled part of a page. */
export function card(title, properties = {}, ...children) {
  const { actions, ...rest } = properties;
  return h(
    "section",
    { ...rest, class: `card ${rest.class ?? ""}` },
    title ? h("header", {}, h("h2", {}, title), h("span", { class: "grow" }), actions) : null,
    children,
  );
}
