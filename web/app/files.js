// A job's files, and getting them: the credential is a header, so a plain link cannot.

import { fill, h, icon } from "./dom.js";
import { clean, size } from "./format.js";
import { complain, toast } from "./notice.js";
import { call, send } from "./session.js";

const MOST = 300;
const FOLDERS = new Set(["directory", "dir", "folder"]);
export const LARGEST_DOWNLOAD = 1024 ** 3;

/** The list of one job's files. */
export class FileList {
  element = h("div", { class: "files" });
  #id;
  #signal;

  constructor(id, signal) {
    this.#id = id;
    this.#signal = signal;
  }

  async load() {
    try {
      const { items, truncated } = await call("GET", this.#path(), { signal: this.#signal });
      const files = items.filter((item) => !FOLDERS.has(item.kind));
      const shown = files.slice(0, MOST);
      fill(
        this.element,
        shown.length === 0 ? h("p", { class: "muted" }, "No files yet.") : null,
        shown.map((item) => this.#file(item)),
        truncated || files.length > shown.length ? h("p", { class: "muted" }, "There are more files. All of them: ", h("code", {}, `simyard download ${this.#id}`)) : null,
      );
    } catch (error) {
      complain(error, "Listing the files");
    }
  }

  #path() {
    return `/api/jobs/${encodeURIComponent(this.#id)}/files`;
  }

  #file(item) {
    const name = clean(item.path);
    return h(
      "button",
      { type: "button", class: "file", title: `Download ${name}`, on: { click: () => this.#download(item) } },
      icon("file"), h("span", { class: "path" }, name), h("span", { class: "muted number" }, size(item.size)), icon("download"),
    );
  }

  async #download(item) {
    if (item.size > LARGEST_DOWNLOAD) {
      toast(`${item.path} is larger than ${size(LARGEST_DOWNLOAD)}. Use the command line: simyard download ${this.#id}`, { kind: "error" });
      return;
    }
    try {
      const path = item.path.split("/").map(encodeURIComponent).join("/");
      const response = await send("GET", `${this.#path()}/${path}`, { signal: this.#signal, accept: "*/*", patience: 0 });
      save(await response.blob(), item.path.split("/").at(-1));
    } catch (error) {
      complain(error, `Downloading ${item.path}`);
    }
  }
}

/** Hand bytes to the browser as a download: never opened, so never interpreted. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
