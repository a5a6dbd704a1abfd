// The holders and the waiters of one pool, as tables that can be sorted, filtered and frozen.

import { byId, element, resize, setAttribute, setText } from "./dom.js";
import { duration, words } from "./format.js";
import { isProxied } from "./model.js";

/**
 * @template T
 * @typedef {object} Column
 * @property {string} label
 * @property {(item: T) => string} text
 * @property {(item: T) => string | number} [order] by the text if there is none
 * @property {boolean} [numeric]
 * @property {boolean} [isId] shortened to the width of its first digits
 * @property {boolean} [isOfCheckouts] hidden for the pools of a proxy, which sees no checkouts
 * @property {(item: T, template: string | null) => string | null} [link]
 */

/** @typedef {import("./model.js").Holder} Holder @typedef {import("./model.js").Waiter} Waiter */

/** @param {string | null} id @param {string | null} template */
function traceLink(id, template) {
  if (id === null || template === null) return null;
  // With a function, since `$` in a text would have a meaning.
  const address = template.replaceAll("{trace_id}", () => encodeURIComponent(id));
  return /^https?:\/\//i.test(address) ? address : null;
}

/** @type {Column<Holder>[]} */
const HOLDER_COLUMNS = [
  { label: "Operation", text: (holder) => holder.operation },
  { label: "Call site", text: (holder) => holder.call_site ?? "–", isOfCheckouts: true },
  { label: "Held for", text: (holder) => duration(holder.age_seconds), order: (holder) => -holder.age_seconds, numeric: true },
  { label: "Activity", text: activity },
  { label: "Silent for", text: (holder) => duration(holder.silent_seconds), order: (holder) => -holder.silent_seconds, numeric: true },
  { label: "Queries", text: (holder) => String(holder.queries), order: (holder) => -holder.queries, numeric: true },
  { label: "Backend", text: (holder) => String(holder.backend_pid ?? "–"), order: (holder) => -(holder.backend_pid ?? 0), numeric: true },
  { label: "Request", text: (holder) => holder.request ?? "–", isOfCheckouts: true },
  { label: "Trace", isId: true, text: (holder) => holder.trace_id ?? "–", link: (holder, template) => traceLink(holder.trace_id, template) },
];

/** @param {Holder} holder */
function activity(holder) {
  const remarks = [
    holder.maintenance ? "maintenance by the pool" : words(holder.activity ?? "not observed"),
    holder.suspected_leak ? "suspected leak" : "",
    holder.waits_for_own_pool ? "waits for its own pool" : "",
  ];
  return remarks.filter((remark) => remark !== "").join(", ");
}

/** @type {Column<Waiter>[]} */
const WAITER_COLUMNS = [
  { label: "Operation", text: (waiter) => waiter.operation },
  { label: "Call site", text: (waiter) => waiter.call_site },
  { label: "Waiting for", text: (waiter) => duration(waiter.age_seconds), order: (waiter) => -waiter.age_seconds, numeric: true },
  { label: "Phase", text: (waiter) => words(waiter.phase) },
  { label: "Its task holds", text: (waiter) => (waiter.own === null ? "–" : `${waiter.own.operation}${waiter.own.call_site === null ? "" : ` at ${waiter.own.call_site}`}`) },
  { label: "Request", text: (waiter) => waiter.request ?? "–" },
  { label: "Trace", isId: true, text: (waiter) => waiter.trace_id ?? "–", link: (waiter, template) => traceLink(waiter.trace_id, template) },
];

/**
 * A table of items.
 * @template T
 */
class Table {
  /**
   * @param {HTMLElement} parent
   * @param {string} title
   * @param {Column<T>[]} columns
   * @param {number} sorted the column that is sorted by at first
   * @param {() => void} changed
   */
  constructor(parent, title, columns, sorted, changed) {
    this.columns = columns;
    this.sorted = sorted;
    this.isReversed = false;
    /** @type {T[]} */
    this.shown = [];
    this.caption = element("caption", {}, title);
    this.title = title;
    this.body = element("tbody");
    this.headers = columns.map((column, at) => {
      const button = element("button", { type: "button" }, column.label);
      button.addEventListener("click", () => {
        this.isReversed = this.sorted === at && !this.isReversed;
        this.sorted = at;
        changed();
      });
      return element("th", { scope: "col", class: column.numeric ? "numeric" : null }, button);
    });
    const table = element("table", {}, this.caption, element("thead", {}, element("tr", {}, ...this.headers)), this.body);
    // A region that scrolls has to be reachable with the keyboard.
    parent.append(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table));
  }

  /**
   * @param {T[]} items
   * @param {number} omitted
   * @param {string} filter in lower case
   * @param {string | null} template of links to traces
   * @param {boolean} isProxied
   */
  show(items, omitted, filter, template, isProxied) {
    this.columns.forEach((column, at) => (this.headers[at].hidden = isProxied && (column.isOfCheckouts ?? false)));
    const column = this.columns[this.sorted];
    const order = column.order ?? column.text;
    const texts = items.map((item) => ({ item, texts: this.columns.map(({ text }) => text(item)), key: order(item) }));
    const matching = texts.filter((row) => filter === "" || row.texts.some((text) => text.toLowerCase().includes(filter)));
    matching.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) * (this.isReversed ? -1 : 1));
    this.headers.forEach((header, at) => {
      const direction = (column.numeric ?? false) !== this.isReversed ? "descending" : "ascending";
      setAttribute(header, "aria-sort", at === this.sorted ? direction : null);
    });
    const hidden = items.length - matching.length;
    const remarks = [hidden > 0 ? `${hidden} hidden by the filter` : "", omitted > 0 ? `${omitted} younger ones not listed` : ""];
    const remark = remarks.filter((text) => text !== "").join(", ");
    setText(this.caption, `${this.title}: ${items.length + omitted}${remark === "" ? "" : ` (${remark})`}`);
    this.shown = matching.map((row) => row.item);
    resize(this.body, matching.length, () =>
      element("tr", {}, ...this.columns.map(({ numeric, isId }) => element("td", { class: numeric ? "numeric" : isId ? "id" : null }))),
    );
    matching.forEach(({ item, texts }, at) => {
      const row = this.body.children[at];
      this.columns.forEach((of, index) => {
        const cell = /** @type {HTMLElement} */ (row.children[index]);
        cell.hidden = this.headers[index].hidden;
        showCell(cell, texts[index], of.link?.(item, template) ?? null);
      });
    });
  }

  /** The table as tab-separated text. */
  text() {
    const columns = this.columns.filter((_, at) => !this.headers[at].hidden);
    const lines = [columns.map(({ label }) => label), ...this.shown.map((item) => columns.map(({ text }) => text(item)))];
    return lines.map((cells) => cells.join("\t")).join("\n");
  }
}

/** @param {Element} cell @param {string} text @param {string | null} link */
function showCell(cell, text, link) {
  if (link === null) {
    setText(cell, text);
    return;
  }
  let anchor = cell.firstElementChild;
  if (anchor === null) {
    anchor = element("a", { rel: "noreferrer", target: "_blank" });
    cell.replaceChildren(anchor);
  }
  setAttribute(anchor, "href", link);
  setText(anchor, text);
}

/** Both tables and their controls. */
export class Lists {
  /** @param {(filter: string) => void} filtered is called when the user changes the filter */
  constructor(filtered) {
    /** @type {import("./model.js").PoolState | null} */
    this.pool = null;
    /** @type {string | null} */
    this.traceUrl = null;
    this.isFrozen = false;
    const redraw = () => this.redraw();
    /** @type {Table<Holder>} */
    this.holders = new Table(byId("holders"), "Holders", HOLDER_COLUMNS, 2, redraw);
    /** @type {Table<Waiter>} */
    this.waiters = new Table(byId("waiting"), "Waiters", WAITER_COLUMNS, 2, redraw);
    this.filter = /** @type {HTMLInputElement} */ (byId("filter"));
    this.filter.addEventListener("input", () => {
      filtered(this.filter.value);
      this.redraw();
    });
    const freeze = byId("freeze");
    freeze.addEventListener("click", () => {
      this.isFrozen = !this.isFrozen;
      freeze.setAttribute("aria-pressed", String(this.isFrozen));
      byId("lists").classList.toggle("frozen", this.isFrozen);
      this.redraw();
    });
    const copy = byId("copy");
    copy.addEventListener("click", async () => {
      const waiters = isProxied(this.pool) ? "" : `\nWaiters\n${this.waiters.text()}\n`;
      const text = `Holders\n${this.holders.text()}\n${waiters}`;
      const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
      setText(byId("copied"), isCopied ? "Copied." : "This browser does not allow it here: select the rows instead.");
      setTimeout(() => setText(byId("copied"), ""), 4000);
    });
  }

  /** @param {import("./model.js").PoolState | null} pool @param {string | null} traceUrl */
  show(pool, traceUrl) {
    this.traceUrl = traceUrl;
    // What is frozen stays, as long as it is the same pool.
    if (this.isFrozen && this.pool !== null && this.pool.name === pool?.name) return;
    this.pool = pool;
    this.redraw();
  }

  redraw() {
    const isOfProxy = isProxied(this.pool);
    setText(byId("lists-title"), isOfProxy ? "Holders now" : "Holders and waiters now");
    byId("waiting").hidden = isOfProxy;
    const filter = this.filter.value.trim().toLowerCase();
    this.holders.show(this.pool?.holders ?? [], this.pool?.holders_omitted ?? 0, filter, this.traceUrl, isOfProxy);
    this.waiters.show(this.pool?.waiters ?? [], this.pool?.waiters_omitted ?? 0, filter, this.traceUrl, isOfProxy);
  }
}
