// What is said over the page: toasts, questions, the keyboard help.

import { button, fill, h } from "./dom.js";
import { clean } from "./format.js";

const STAY = { info: 5000, error: 12000 };

/** Say something briefly; errors stay longer and interrupt a screen reader. */
export function toast(text, { kind = "info", link } = {}) {
  const element = h(
    "div",
    { class: "toast", data: { kind }, role: kind === "error" ? "alert" : null },
    h("p", {}, clean(text), link ? [" ", h("a", { href: link.href }, link.text)] : null),
    h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", on: { click: () => element.remove() } }, "×"),
  );
  const place = document.getElementById("toasts");
  while (place.children.length >= 4) place.firstElementChild.remove();
  place.append(element);
  setTimeout(() => element.remove(), STAY[kind]);
}

/** Say an error; aborted calls and a lost connection have places of their own. */
export function complain(error, doing) {
  if (error.name === "AbortError" || error.status === 401) return;
  const fields = (error.fields ?? []).map((field) => `${field.field}: ${field.message}`).join("; ");
  toast(`${doing ? `${doing}: ` : ""}${error.message}${fields ? ` (${fields})` : ""}`, { kind: "error" });
}

/** Ask before something that cannot be undone; resolves to true or false. */
export function confirm(title, text, { yes, no = "No, go back" }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" });
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    fill(
      dialog,
      h("h2", { id: "ask-title" }, clean(title)),
      h("p", {}, clean(text)),
      h(
        "footer",
        {},
        button(no, { on: () => close(false) }),
        button(yes, { class: "danger", autofocus: true, on: () => close(true) }),
      ),
    );
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      close(false);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const KEYS = [
  ["/", "Search"],
  ["j  k", "Next row, previous row"],
  ["Enter", "Open the job"],
  ["x", "Select the row"],
  ["g", "Go to the list"],
  ["h", "Go to the host"],
  ["f", "Follow the log"],
  ["w", "Wrap the log"],
  ["Esc", "Leave a field, clear the selection"],
  ["?", "This help"],
];

export function showHelp() {
  if (document.querySelector("dialog[open]")) return;
  const dialog = h("dialog", { class: "ask help", "aria-labelledby": "help-title" });
  const close = () => {
    dialog.close();
    dialog.remove();
  };
  fill(
    dialog,
    h("h2", { id: "help-title" }, "Keys"),
    h("dl", {}, KEYS.map(([key, text]) => [h("dt", {}, key.split("  ").map((one) => h("kbd", {}, one))), h("dd", {}, text)])),
    h("h2", {}, "Search words"),
    h("dl", {}, [
      ["state:failed,running", "States, one or more"],
      ["name:patch", "Part of the name; * and ? make it a pattern"],
      ["project:antenna  group:sweep", "This project, this group"],
      ["tag:key=value  id:17,18", "A tag, certain jobs"],
      ["anything else", "Looked for in names, projects, groups and tags"],
    ].map(([word, text]) => [h("dt", {}, h("code", {}, word)), h("dd", {}, text)])),
    h("footer", {}, button("Close", { autofocus: true, on: close })),
  );
  dialog.addEventListener("cancel", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
