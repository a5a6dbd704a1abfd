// The verdict about one pool, and its numbers now.

import { byId, element, prose, resize, setAttribute, setProse, setText } from "./dom.js";
import { count, duration, measure, sentence, words } from "./format.js";
import { isProblem, isProxied } from "./model.js";

/** The runbook of each cause. A test compares it with the causes and the runbooks. */
export const RUNBOOKS = {
  undersized: "PoolscopeDiagnosedUndersized",
  burst: "PoolscopeDiagnosedBurst",
  slow_queries: "PoolscopeDiagnosedSlowQueries",
  lock_wait: "PoolscopeDiagnosedLockWait",
  held_idle: "PoolscopeDiagnosedHeldIdle",
  idle_in_transaction: "PoolscopeDiagnosedIdleInTransaction",
  leak: "PoolscopeDiagnosedLeak",
  self_deadlock: "PoolscopeDiagnosedSelfDeadlock",
  server_down: "PoolscopeDiagnosedServerDown",
  server_full: "PoolscopeDiagnosedServerFull",
  connect_slow: "PoolscopeDiagnosedConnectSlow",
  churn: "PoolscopeDiagnosedChurn",
  retry_storm: "PoolscopeDiagnosedRetryStorm",
  runtime_stalled: "PoolscopeDiagnosedRuntimeStalled",
  cache_down: "PoolscopeDiagnosedCacheDown",
};

/** The causes, in words. @param {string | null} cause */
export function causeWords(cause) {
  if (cause === null) return "starting";
  return cause === "not_enough_data" ? "not enough data yet" : words(cause);
}

/** How urgent a cause is, as a class of the style sheet and a sign beside the colour. @param {string | null} cause */
export function level(cause) {
  if (isProblem(cause)) return "bad";
  return cause === "healthy" ? "good" : "unknown";
}

export class Verdict {
  constructor() {
    /** What was announced last, as in `shop: healthy`. */
    this.announced = "";
  }

  /** @param {import("./model.js").PoolState} pool */
  show(pool) {
    const diagnosis = pool.diagnosis;
    const cause = diagnosis?.cause ?? null;
    byId("verdict").className = level(cause);
    setText(byId("cause"), causeWords(cause));
    setText(byId("since"), diagnosis && isProblem(cause) ? `for ${duration(Math.floor(diagnosis.since_seconds))}` : "");
    setProse(byId("finding"), diagnosis ? sentence(`${diagnosis.finding}.`) : "The first sample of the pool is awaited.");
    setProse(byId("advice"), diagnosis?.advice ?? "");
    setText(byId("responsible"), responsible(diagnosis));
    setText(byId("consequences"), diagnosis?.consequences.length ? `Also caused by this: ${diagnosis.consequences.map(words).join(", ")}.` : "");
    const runbook = cause !== null && cause in RUNBOOKS ? RUNBOOKS[/** @type {keyof typeof RUNBOOKS} */ (cause)] : null;
    const link = byId("runbook");
    link.hidden = runbook === null;
    setAttribute(link, "href", runbook === null ? null : `runbooks/${runbook}`);
    this.evidence(diagnosis?.evidence ?? []);
    this.announce(pool.name, cause, diagnosis);
  }

  /** @param {import("./model.js").Diagnosis["evidence"]} evidence */
  evidence(evidence) {
    const list = byId("evidence");
    resize(list, evidence.length, () => element("div", {}, element("dt"), element("dd")));
    evidence.forEach(({ name, value, unit, usual }, at) => {
      const [term, description] = list.children[at].children;
      setText(term, words(name));
      setText(description, measure(name, value, unit) + (usual === null ? "" : ` (usual ${measure(name, usual, unit)})`));
    });
  }

  /** Reads out a verdict whose cause is new. @param {string} name @param {string | null} cause @param {import("./model.js").Diagnosis | null} diagnosis */
  announce(name, cause, diagnosis) {
    const now = `${name}: ${causeWords(cause)}`;
    if (this.announced === now) return;
    this.announced = now;
    const more = diagnosis && isProblem(cause) ? `. ${prose(sentence(`${diagnosis.finding}. ${diagnosis.advice}`))}` : "";
    setText(byId("announcement"), `Pool ${now}${more}`);
  }
}

/** @param {import("./model.js").Diagnosis | null} diagnosis */
function responsible(diagnosis) {
  if (diagnosis === null || diagnosis.operation === null) return "";
  return `Operation ${diagnosis.operation}${diagnosis.call_site === null ? "" : ` at ${diagnosis.call_site}`}`;
}

/** The numbers above the charts: name, and what they are computed from. */
const NUMBERS = /** @type {const} */ ([
  ["used", "Used of maximum"],
  ["idle", "Idle"],
  ["waiting", "Waiting"],
  ["oldest", "Longest wait now"],
  ["p99", "Checkout p99"],
  ["rate", "Checkouts per second"],
  ["failed", "Failed per second"],
  ["leaks", "Suspected leaks"],
]);

/** Those about checkouts, which a proxy does not see. */
const CHECKOUT_NUMBERS = ["waiting", "oldest", "p99", "rate", "failed"];

/** Creates the numbers. */
export function createNumbers() {
  const tiles = NUMBERS.map(([id, label]) => element("div", {}, element("dt", {}, label), element("dd", { id: `now-${id}` }, "–")));
  byId("now").append(...tiles);
}

/**
 * @param {import("./model.js").PoolState} pool
 * @param {import("./model.js").Row | null} row
 */
export function showNumbers(pool, row) {
  const { state } = pool;
  for (const id of CHECKOUT_NUMBERS) /** @type {HTMLElement} */ (byId(`now-${id}`).parentElement).hidden = isProxied(pool);
  setText(byId("now-used"), `${state.used} / ${state.max}`);
  setText(byId("now-idle"), String(state.idle));
  setText(byId("now-waiting"), String(state.waiting));
  setText(byId("now-leaks"), String(pool.suspected_leaks));
  if (row === null) return;
  const seconds = row.seconds || 1;
  const all = Object.values(row.outcomes).reduce((sum, value) => sum + value, 0);
  setText(byId("now-oldest"), row.in_flight === 0 ? "–" : duration(row.oldest_wait_seconds));
  setText(byId("now-p99"), duration(row.wait_p99_seconds));
  setText(byId("now-rate"), count(all / seconds));
  setText(byId("now-failed"), count((all - row.outcomes.ok) / seconds));
}
