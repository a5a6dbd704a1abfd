// The charts of one pool. A state has the colour that it has on the dashboards.

import { Chart } from "./chart.js";
import { byId, element, setAttribute, setText } from "./dom.js";
import { clock, count, duration } from "./format.js";

/** Per second, or a number of connections or checkouts. @param {number} value */
const number = (value) => (value === 0 ? "0" : value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value)));

/** The colours of operations and error codes, which have no fixed ones. */
const SERIES_COLORS = ["blue", "orange", "purple", "yellow", "teal", "pink", "red"];

/** The operations that have a colour; the others are shown together. */
const MAX_OPERATIONS = 6;

/** @typedef {import("./model.js").History} History */

/** @type {{ id: string, title: string, stacked: boolean, format: (value: number) => string, least?: number, isWhole?: boolean, isOfCheckouts?: boolean, content: (history: History) => Omit<import("./chart.js").Content, "times"> }[]} */
const CHARTS = [
  {
    id: "connections",
    title: "Connections by state",
    stacked: true,
    isWhole: true,
    format: count,
    content: (history) => ({
      parts: [
        { label: "used", color: "blue", values: history.get("used") },
        { label: "creating", color: "purple", values: history.get("creating") },
        { label: "closing", color: "orange", values: history.get("closing") },
        { label: "idle", color: "grey", values: history.get("idle") },
      ],
      limit: { label: "maximum", values: history.get("max") },
    }),
  },
  {
    id: "waiters",
    isOfCheckouts: true,
    title: "Waiting checkouts",
    stacked: false,
    isWhole: true,
    format: count,
    content: (history) => ({
      parts: [
        { label: "waiting for capacity", color: "blue", values: history.get("waiting") },
        // Mostly those that wait for capacity, so that a line of it would hide theirs.
        { label: "in flight", color: "light-blue", isArea: true, values: history.get("in_flight") },
      ],
    }),
  },
  {
    id: "activity",
    title: "Connections held by activity",
    stacked: true,
    format: number,
    content: (history) => ({
      parts: [
        { label: "executing", color: "blue", values: history.get("held.executing") },
        { label: "idle", color: "yellow", values: history.get("held.idle") },
        { label: "idle in transaction", color: "orange", values: history.get("held.idle_in_transaction") },
      ],
      limit: { label: "maximum", values: history.get("max") },
    }),
  },
  {
    id: "operations",
    title: "Connections held by operation",
    stacked: true,
    format: number,
    content: (history) => ({ parts: operations(history) }),
  },
  {
    id: "waits",
    isOfCheckouts: true,
    title: "Duration of checkouts",
    stacked: false,
    format: duration,
    least: 0.001,
    content: (history) => ({
      parts: [
        { label: "p99", color: "purple", values: history.get("wait_p99_seconds") },
        { label: "p50", color: "blue", values: history.get("wait_p50_seconds") },
      ],
    }),
  },
  {
    id: "outcomes",
    isOfCheckouts: true,
    title: "Checkouts per second by outcome",
    stacked: true,
    format: number,
    content: (history) => ({
      parts: [
        { label: "ok", color: "green", values: rate(history, "outcomes.ok") },
        { label: "timeout", color: "red", values: rate(history, "outcomes.timeout") },
        { label: "error", color: "orange", values: rate(history, "outcomes.error") },
        { label: "shed", color: "purple", values: rate(history, "outcomes.shed") },
        { label: "closed", color: "grey", values: rate(history, "outcomes.closed") },
        { label: "cancelled", color: "light-blue", values: rate(history, "outcomes.cancelled") },
      ],
    }),
  },
  {
    id: "errors",
    title: "Errors by SQLSTATE, and retries, per second",
    stacked: false,
    format: number,
    content: (history) => ({
      parts: [
        ...errorCodes(history).map((code, at) => ({
          label: code,
          color: SERIES_COLORS[(at + 1) % SERIES_COLORS.length],
          values: rate(history, `errors.${code}`),
        })),
        { label: "retries", color: "blue", values: rate(history, "retries") },
      ],
    }),
  },
  {
    id: "slots",
    title: "Connection slots of the server",
    stacked: true,
    isWhole: true,
    format: count,
    content: (history) => {
      const [slots, left] = [history.get("server_slots"), history.get("server_slots_left")];
      const taken = slots.map((total, at) => (total === null ? null : total - (left[at] ?? 0)));
      return { parts: [{ label: "taken", color: "blue", values: taken }], limit: { label: "slots", values: slots } };
    },
  },
];

/** @param {History} history @param {string} name */
function rate(history, name) {
  const seconds = history.get("seconds");
  return history.get(name).map((value, at) => (value === null ? null : value / (seconds[at] || 1)));
}

/** @param {History} history */
function errorCodes(history) {
  const codes = history.names("errors.");
  return byTotal(history, codes, "errors.").slice(0, 6);
}

/** @param {History} history @param {string[]} names @param {string} prefix */
function byTotal(history, names, prefix) {
  /** @param {string} name */
  const total = (name) => history.get(prefix + name).reduce((/** @type {number} */ sum, value) => sum + (value ?? 0), 0);
  const totals = new Map(names.map((name) => [name, total(name)]));
  return names.sort((a, b) => (totals.get(b) ?? 0) - (totals.get(a) ?? 0) || (a < b ? -1 : 1));
}

/** @type {Map<string, string>} */
const operationColors = new Map();

/** Returns the colour of an operation, which it keeps. @param {string} name @param {Set<string>} shown */
function operationColor(name, shown) {
  for (const known of operationColors.keys()) if (!shown.has(known)) operationColors.delete(known);
  const taken = new Set(operationColors.values());
  const color = operationColors.get(name) ?? SERIES_COLORS.find((free) => !taken.has(free)) ?? "blue";
  operationColors.set(name, color);
  return color;
}

/** @param {History} history */
function operations(history) {
  const names = byTotal(history, history.names("operations."), "operations.").slice(0, MAX_OPERATIONS);
  const shown = new Set(names);
  const parts = names.map((name) => ({
    label: name,
    color: operationColor(name, shown),
    values: history.get(`operations.${name}`),
  }));
  const held = ["held.executing", "held.idle", "held.idle_in_transaction"].map((name) => history.get(name));
  const rest = history.times().map((_, at) => {
    const all = held.reduce((sum, values) => sum + (values[at] ?? 0), 0);
    const named = parts.reduce((sum, part) => sum + (part.values[at] ?? 0), 0);
    return Math.max(0, Math.round((all - named) * 1000) / 1000);
  });
  parts.push({ label: "all other operations", color: "grey", values: rest });
  return parts;
}

/** The charts, and the moment whose values their legends show. */
export class Charts {
  /** @param {() => void} redraw */
  constructor(redraw) {
    this.charts = CHARTS.map((options) => ({ chart: new Chart(options), options }));
    this.slots = /** @type {Chart} */ (this.charts.at(-1)?.chart);
    this.slider = element("input", { type: "range", id: "moment", min: "0", max: "900", value: "900", step: "1" });
    this.output = element("output", { for: "moment" }, "now");
    /** Seconds before the last point, or zero. */
    this.ago = 0;
    /** The seconds that are shown. */
    this.range = 900;
    byId("moments").append(element("label", { for: "moment" }, "Values at"), this.slider, this.output);
    byId("charts").append(...this.charts.map(({ chart }) => chart.root));
    this.slider.addEventListener("input", () => {
      this.ago = this.range - Number(this.slider.value);
      redraw();
    });
    for (const { chart } of this.charts) {
      chart.canvas.addEventListener("pointermove", (event) => {
        const box = chart.canvas.getBoundingClientRect();
        const share = (event.clientX - box.left - 46) / (box.width - 46);
        this.ago = Math.round(Math.min(Math.max(0, (1 - share) * this.range), this.range));
        redraw();
      });
      chart.canvas.addEventListener("pointerleave", () => {
        this.ago = 0;
        redraw();
      });
    }
  }

  /**
   * @param {History} history
   * @param {number} seconds the range
   * @param {import("./chart.js").Palette} palette
   * @param {boolean} isProxied
   */
  draw(history, seconds, palette, isProxied) {
    const times = history.times();
    const to = times.at(-1) ?? Date.now() / 1000;
    this.range = seconds;
    this.ago = Math.min(this.ago, seconds);
    setAttribute(this.slider, "max", String(seconds));
    if (Number(this.slider.value) !== seconds - this.ago) this.slider.value = String(seconds - this.ago);
    const at = this.ago === 0 ? null : to - this.ago;
    setText(this.output, at === null ? `now (${clock(to)})` : `${clock(at)}, ${duration(this.ago)} ago`);
    setAttribute(this.slider, "aria-valuetext", this.output.textContent);
    this.slots.root.hidden = !history.get("server_slots").some((slots) => slots !== null);
    for (const { chart, options } of this.charts) {
      if (options.isOfCheckouts) chart.root.hidden = isProxied;
      const content = options.content(history);
      if (options.id === "errors") {
        setText(byId("errors-title"), isProxied ? "Errors by SQLSTATE per second" : options.title);
        if (isProxied) content.parts = content.parts.filter(({ label }) => label !== "retries");
      }
      if (!chart.root.hidden) chart.draw({ times, ...content }, { from: to - seconds, to, at }, palette);
    }
  }
}
