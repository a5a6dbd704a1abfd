// The table of all pools, the worst first.

import { sparkline } from "./chart.js";
import { byId, element, resize, setAttribute, setText } from "./dom.js";
import { isProxied } from "./model.js";
import { causeWords, level } from "./verdict.js";

export class PoolTable {
  /** @param {(name: string) => void} select */
  constructor(select) {
    this.section = byId("pools");
    this.body = byId("pool-rows");
    this.filter = /** @type {HTMLInputElement} */ (byId("pool-filter"));
    /** @type {string[]} The names in the order in which they are shown. */
    this.order = [];
    this.body.addEventListener("click", (event) => {
      const link = event.target instanceof Element ? event.target.closest("a") : null;
      if (link === null || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      select(link.dataset.pool ?? "");
    });
  }

  /**
   * @param {import("./model.js").Model} model
   * @param {(name: string) => string} address
   * @param {import("./chart.js").Palette} palette
   */
  show(model, address, palette) {
    this.section.hidden = model.pools.size < 2 && (model.selected === null || model.pools.has(model.selected));
    if (this.section.hidden) return;
    const filter = this.filter.value.trim().toLowerCase();
    const shown = [...model.pools].filter(([name]) => filter === "" || name.toLowerCase().includes(filter));
    // A row must not move from under the pointer or the focus.
    const known = new Set(this.order);
    const isSame = shown.length === known.size && shown.every(([name]) => known.has(name));
    if (!this.body.matches(":hover, :focus-within") || !isSame) {
      shown.sort(([a, one], [b, other]) => other.severity() - one.severity() || (a < b ? -1 : 1));
      this.order = shown.map(([name]) => name);
    }
    const problems = [...model.pools.values()].filter((pool) => pool.severity() >= 4).length;
    setText(byId("pools-title"), `Pools: ${model.pools.size}, ${problems === 0 ? "none" : problems} with a problem`);
    const summaries = this.order.flatMap((name) => model.pools.get(name) ?? []);
    resize(this.body, summaries.length, createRow);
    summaries.forEach((summary, at) => {
      const { last } = summary;
      const row = this.body.children[at];
      const [name, cause, used, waiting, line] = row.children;
      const link = /** @type {HTMLAnchorElement} */ (name.firstElementChild);
      setText(link, last.name);
      setAttribute(link, "data-pool", last.name);
      setAttribute(link, "href", address(last.name));
      setAttribute(link, "aria-current", last.name === model.selected ? "true" : null);
      setText(cause, causeWords(last.cause));
      if (cause.className !== level(last.cause)) cause.className = level(last.cause);
      setText(used, `${last.used} / ${last.max}`);
      setText(waiting, isProxied(last) ? "–" : String(last.waiting));
      sparkline(/** @type {HTMLCanvasElement} */ (line.firstElementChild), summary.used, summary.waiting, last.max, palette);
    });
  }
}

function createRow() {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("a")),
    element("td"),
    element("td", { class: "numeric" }),
    element("td", { class: "numeric" }),
    element("td", { class: "spark" }, element("canvas", { "aria-hidden": "true" })),
  );
}
