// The live page: the verdict, the last 15 minutes, the holders and the waiters of each pool.

import { Palette } from "./chart.js";
import { Charts } from "./charts.js";
import { byId, element, resize, setText } from "./dom.js";
import { field, words } from "./format.js";
import { Lists } from "./lists.js";
import { History, Model, isProxied } from "./model.js";
import { PoolTable } from "./pools.js";
import { Replay } from "./replay.js";
import { LiveSource } from "./source.js";
import { Verdict, createNumbers, showNumbers } from "./verdict.js";

/** A page that nobody sees ends its stream after this time. */
const HIDDEN_TIME = 60000;

const RANGES = ["60", "300", "900"];

/** What the address keeps. */
const view = readAddress();

/** The title of the page without a pool. */
const title = document.title;

/** Whether the process has another version than this page, although the page was loaded again because of it. */
let isOtherVersion = false;

const model = new Model();
const palette = new Palette();
const verdict = new Verdict();
byId("app").hidden = false;
document.body.classList.add("live");
createNumbers();
const charts = new Charts(() => schedule());
const lists = new Lists((filter) => {
  view.filter = filter;
  writeAddress(false);
});
const pools = new PoolTable(select);
const range = /** @type {HTMLSelectElement} */ (byId("range"));

const replay = new Replay((at, isPlaying) => {
  view.at = at;
  writeAddress(false);
  replay.isPlaying = isPlaying;
  source.open(model.selected, at);
}, view.at);

const source = new LiveSource({
  snapshot(snapshot) {
    isOtherVersion = snapshot.version !== document.documentElement.dataset.version;
    // The process is another one since this page was loaded.
    if (isOtherVersion && reloadOnce(snapshot.version)) return;
    model.reset(snapshot);
    const time = snapshot.pools[0]?.last.time;
    if (snapshot.replay !== null) {
      byId("sizing").hidden = true;
      replay.begin(snapshot.replay, time ?? snapshot.replay.begin);
    }
    byId("app").dataset.time = String(time ?? "");
    // The only pool is opened, which begins another stream.
    if (model.selected === null && model.pools.size === 1) {
      open(/** @type {string} */ ([...model.pools.keys()][0]));
      return;
    }
    // A recording is shown at a moment, until it is played.
    if (snapshot.replay !== null && !replay.isPlaying) source.close();
    update();
  },
  delta(delta) {
    model.add(delta);
    const time = delta.pools[0]?.time;
    byId("app").dataset.time = String(time ?? "");
    if (time !== undefined && replay.recording !== null) {
      replay.advance(time);
      view.at = time;
      if (!replay.isPlaying) source.close();
    }
    // A pool that was created since the snapshot, and is the only one.
    if (model.selected === null && model.pools.size === 1) open(/** @type {string} */ ([...model.pools.keys()][0]));
    else update();
  },
  pool(pool) {
    model.state = pool;
  },
  status({ state, message }) {
    if (state === "live" && replay.recording !== null) [state, message] = ["replay", replay.isPlaying ? "playing a recording" : "recording"];
    if (state === "live" && isOtherVersion) message = "live, but this page is of another version: reload it";
    const status = byId("status");
    if (status.className !== state) status.className = state;
    setText(status, message);
    document.body.classList.toggle("stale", state !== "live" && state !== "replay");
  },
});

/**
 * Loads the page again, once for each version: where several processes of different versions serve one address, the page
 * may be of another one again.
 * @param {string} version
 */
function reloadOnce(version) {
  try {
    const key = `poolscope reloaded for ${version}`;
    if (sessionStorage.getItem(key) !== null) return false;
    sessionStorage.setItem(key, "");
  } catch {
    // Without storage, it would not be known that this happened.
    return false;
  }
  location.reload();
  return true;
}

function readAddress() {
  const parameters = new URLSearchParams(location.search);
  const range = parameters.get("range") ?? "";
  const at = Number(parameters.get("at") ?? "");
  return {
    pool: parameters.get("pool"),
    /** The moment of a recording. @type {number | null} */
    at: at > 0 ? at : null,
    range: RANGES.includes(range) ? range : "900",
    filter: parameters.get("filter") ?? "",
  };
}

/** @param {string | null} pool */
function address(pool) {
  const parameters = new URLSearchParams();
  if (pool !== null) parameters.set("pool", pool);
  if (view.range !== "900") parameters.set("range", view.range);
  if (view.filter !== "") parameters.set("filter", view.filter);
  if (view.at !== null) parameters.set("at", String(view.at));
  const query = parameters.toString();
  return query === "" ? location.pathname : `?${query}`;
}

/** @param {boolean} isNew whether the browser's Back button returns to the address before */
function writeAddress(isNew) {
  if (isNew) history.pushState(null, "", address(view.pool));
  else history.replaceState(null, "", address(view.pool));
}

/** @param {string} name */
function select(name) {
  view.pool = name;
  writeAddress(true);
  open(name);
  update();
  byId("pool").scrollIntoView({ block: "start" });
  byId("pool-name").focus({ preventScroll: true });
}

/** @param {string | null} pool */
function open(pool) {
  if (pool !== model.selected) {
    // What is known of one pool must not be shown as that of another, however long the stream takes.
    model.selected = pool;
    model.state = null;
    model.history = new History();
  }
  source.open(pool, view.at);
}

let isScheduled = false;

/** Draws the charts with the next frame. */
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    charts.draw(model.history, Number(view.range), palette, isProxied(model.state));
    byId("charts").dataset.time = String(model.history.times().at(-1) ?? "");
  });
}

function update() {
  pools.show(model, address, palette);
  const { selected, state } = model;
  byId("pool").hidden = selected === null;
  byId("none").hidden = model.pools.size > 0 || selected !== null;
  byId("choose").hidden = selected !== null || model.pools.size === 0;
  if (selected === null) {
    document.title = title;
    return;
  }
  setText(byId("pool-name"), selected);
  const summary = model.pools.get(selected) ?? null;
  byId("gone").hidden = summary !== null;
  for (const id of ["verdict", "now"]) byId(id).hidden = state === null;
  byId("sizing").hidden = state === null || replay.recording !== null || isProxied(state);
  if (state !== null) {
    verdict.show(state);
    showNumbers(state, summary?.last ?? null);
    showSizing(state.sizing);
  }
  lists.show(state, model.traceUrl);
  document.title = state?.diagnosis ? `${words(state.diagnosis.cause)} · ${selected} · poolscope` : `${selected} · poolscope`;
  schedule();
}

/** Shows what the API reports about the size: numbers by name, and lists of objects as a table. @param {Record<string, unknown>} sizing */
function showSizing(sizing) {
  const size = sizing.recommended_size ?? null;
  const by = sizing.withheld_by ?? null;
  setText(
    byId("recommended"),
    by !== null
      ? `No size is recommended while the pool is diagnosed with ${words(String(by))}.`
      : size !== null
        ? `Recommended size: ${size} connections.`
        : "No size is recommended yet: not enough load has been recorded.",
  );
  const tables = Object.entries(sizing).filter(([, value]) => Array.isArray(value) && value.length > 0 && typeof value[0] === "object");
  const [, rows] = tables[0] ?? [null, []];
  const list = /** @type {Record<string, unknown>[]} */ (rows);
  const table = byId("sizing-table");
  table.hidden = list.length === 0;
  const columns = Object.keys(list[0] ?? {});
  const head = byId("sizing-head");
  resize(head, columns.length, () => element("th", { scope: "col", class: "numeric" }));
  columns.forEach((column, at) => setText(head.children[at], field(column, null).label));
  const body = byId("sizing-rows");
  resize(body, list.length, () => element("tr"));
  list.forEach((values, at) => {
    const row = body.children[at];
    resize(row, columns.length, () => element("td", { class: "numeric" }));
    columns.forEach((column, index) => setText(row.children[index], field(column, values[column]).text));
  });
}

range.value = view.range;
range.addEventListener("change", () => {
  view.range = range.value;
  writeAddress(false);
  schedule();
});
lists.filter.value = view.filter;
pools.filter.addEventListener("input", () => pools.show(model, address, palette));
addEventListener("popstate", () => {
  Object.assign(view, readAddress());
  range.value = view.range;
  lists.filter.value = view.filter;
  open(view.pool);
  update();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  palette.read();
  update();
});
new ResizeObserver(() => schedule()).observe(byId("charts"));

/** @type {ReturnType<typeof setTimeout> | undefined} */
let hiding;
let isPaused = false;
function visibilityChanged() {
  clearTimeout(hiding);
  if (document.hidden) {
    // Browsers open only six connections to a server, and viewers are limited.
    hiding = setTimeout(() => {
      isPaused = true;
      source.close();
    }, HIDDEN_TIME);
  } else if (isPaused) {
    isPaused = false;
    open(model.selected);
  }
}
document.addEventListener("visibilitychange", visibilityChanged);

byId("links").classList.add("below");
open(view.pool);
// It may have been opened in the background.
visibilityChanged();
