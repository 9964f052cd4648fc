// Small line charts of a job's samples. Pure drawing: numbers in, SVG out.

import { h, svg } from "./dom.js";

const WIDTH = 340;
const HEIGHT = 64;

/**
 * Draw `points` ([time, value], in order). `limit` draws a line where what was asked for lies;
 * `label(value)` writes a value, `at(time)` a time.
 */
export function chart({ name, points, limit = 0, label, at }) {
  const last = points.at(-1)[0];
  const first = points[0][0];
  const peak = Math.max(...points.map(([, value]) => value));
  const top = Math.max(peak, peak > limit * 0.35 ? limit : 0) * 1.08 || 1;
  const x = (time) => ((time - first) / Math.max(last - first, 1e-9)) * WIDTH;
  const y = (value) => HEIGHT - 1 - (value / top) * (HEIGHT - 4);
  const line = points.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const said = h("span", { class: "muted" }, label(points.at(-1)[1]));
  const show = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const time = first + ((event.clientX - box.left) / box.width) * (last - first);
    let nearest = points[0];
    for (const point of points) if (Math.abs(point[0] - time) < Math.abs(nearest[0] - time)) nearest = point;
    cursor.setAttribute("x1", x(nearest[0]));
    cursor.setAttribute("x2", x(nearest[0]));
    cursor.setAttribute("visibility", "visible");
    said.textContent = `${label(nearest[1])} at ${at(nearest[0])}`;
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    said.textContent = label(points.at(-1)[1]);
  };
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("span", {}, name), said),
    svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${name}: peak ${label(peak)} over ${at(last)}`,
        on: { pointermove: show, pointerleave: hide },
      },
      svg("polygon", { class: "area", points: `0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}` }),
      limit > 0 && limit <= top ? svg("line", { class: "limit", x1: 0, x2: WIDTH, y1: y(limit), y2: y(limit) }) : null,
      svg("polyline", { class: "line", points: line }),
      cursor,
    ),
    h("div", { class: "axis" }, h("span", {}, at(first)), h("span", {}, at(last))),
  );
}

/**
 * A bar of how much of something is in use; `share` between 0 and 1. `scarce` is for what must
 * not run out: all cores at work is good news, a full disk is not.
 */
export function bar(share, name, { scarce = false } = {}) {
  const used = Math.min(1, Math.max(0, share || 0));
  const inner = h("i");
  inner.style.inlineSize = `${(used * 100).toFixed(1)}%`;
  return h(
    "div",
    {
      class: "bar", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": Math.round(used * 100), data: { level: !scarce || used < 0.8 ? "calm" : used < 0.93 ? "warm" : "high" },
    },
    inner,
  );
}
