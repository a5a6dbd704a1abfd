// The data that the page shows, as the API reports it (docs/api.yaml), and the points of the last 15 minutes.

/**
 * @typedef {{ time: number, cause: string }} Change
 *
 * @typedef {object} Recording what is replayed
 * @property {number} begin
 * @property {number} end
 * @property {Change | null} incident
 * @property {string | null} truncation
 * @property {string} library_version
 * @property {Change[]} changes
 *
 * @typedef {{ executing: number, idle: number, idle_in_transaction: number }} Held
 *
 * @typedef {object} Row
 * @property {string} name
 * @property {number} time
 * @property {number} seconds
 * @property {number} used
 * @property {number} idle
 * @property {number} creating
 * @property {number} closing
 * @property {number} max
 * @property {number} waiting
 * @property {number} in_flight
 * @property {number} suspected_leaks
 * @property {number} oldest_wait_seconds
 * @property {number | null} wait_p50_seconds
 * @property {number | null} wait_p99_seconds
 * @property {Record<string, number>} outcomes
 * @property {number} retries
 * @property {Held} held
 * @property {(Held & { name: string })[]} operations
 * @property {{ sqlstate: string, count: number }[]} errors
 * @property {number | null} server_slots
 * @property {number | null} server_slots_left
 * @property {string | null} cause
 * @property {string} kind
 *
 * @typedef {object} Columns
 * @property {string} name
 * @property {number[]} time
 * @property {Record<string, number[]>} outcomes
 * @property {{ executing: number[], idle: number[], idle_in_transaction: number[] }} held
 * @property {{ name: string, executing: number[], idle: number[], idle_in_transaction: number[] }[]} operations
 * @property {{ sqlstate: string, count: number[] }[]} errors
 *
 * @typedef {{ operation: string, call_site: string | null }} OwnConnection
 *
 * @typedef {object} Holder
 * @property {string} operation
 * @property {string | null} call_site
 * @property {number} age_seconds
 * @property {string | null} activity
 * @property {number} queries
 * @property {number | null} backend_pid
 * @property {string | null} trace_id
 * @property {number} silent_seconds
 * @property {boolean} maintenance
 * @property {boolean} suspected_leak
 * @property {boolean} waits_for_own_pool
 * @property {string | null} request
 *
 * @typedef {object} Waiter
 * @property {string} operation
 * @property {string} call_site
 * @property {string} phase
 * @property {number} age_seconds
 * @property {OwnConnection | null} own
 * @property {string | null} trace_id
 * @property {string | null} request
 *
 * @typedef {object} Diagnosis
 * @property {string} cause
 * @property {number} since_seconds
 * @property {string | null} operation
 * @property {string | null} call_site
 * @property {{ name: string, value: number, unit: string, usual: number | null }[]} evidence
 * @property {string} advice
 * @property {string[]} consequences
 * @property {string} finding
 *
 * @typedef {object} PoolState
 * @property {string} name
 * @property {string} kind
 * @property {{ used: number, idle: number, creating: number, closing: number, waiting: number, max: number }} state
 * @property {Holder[]} holders
 * @property {Waiter[]} waiters
 * @property {number} suspected_leaks
 * @property {number} holders_omitted
 * @property {number} waiters_omitted
 * @property {Diagnosis | null} diagnosis
 * @property {Record<string, unknown>} sizing
 *
 * @typedef {{ last: Row, time: number[], used: number[], waiting: number[] }} PoolLine
 *
 * @typedef {object} Snapshot
 * @property {string} version
 * @property {string | null} trace_url
 * @property {PoolLine[]} pools
 * @property {PoolState | null} pool
 * @property {Columns | null} history
 * @property {Recording | null} replay
 *
 * @typedef {{ pools: Row[] }} Delta
 */

/** The points that are kept. */
export const MAX_POINTS = 900;

/** The points of a line in the table of pools. */
const LINE_POINTS = 60;

/** The values of a point that are numbers, or `null`. */
const FIELDS = /** @type {const} */ ([
  "time", "seconds", "used", "idle", "creating", "closing", "max", "waiting", "in_flight", "suspected_leaks",
  "oldest_wait_seconds", "wait_p50_seconds", "wait_p99_seconds", "retries", "server_slots", "server_slots_left",
]);
const ACTIVITIES = /** @type {const} */ (["executing", "idle", "idle_in_transaction"]);

/** @typedef {(number | null)[]} Series */

/** The points of one pool, a list for each value. */
export class History {
  constructor() {
    /** Each value by its name, such as `used`, `outcomes.ok`, `held.idle`, `operations.NAME` or `errors.40001`.
     * @type {Map<string, Series>} */
    this.series = new Map(FIELDS.map((field) => [field, []]));
    this.length = 0;
  }

  /** @param {string} name @returns {Series} */
  get(name) {
    return this.series.get(name) ?? [];
  }

  /** @returns {number[]} */
  times() {
    return /** @type {number[]} */ (this.get("time"));
  }

  /**
   * The names of the series that begin with a prefix, without it.
   * @param {string} prefix
   */
  names(prefix) {
    return [...this.series.keys()].filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  }

  /** @param {Columns & Record<string, unknown>} columns */
  static of(columns) {
    const history = new History();
    history.length = columns.time.length;
    for (const field of FIELDS) history.series.set(field, /** @type {Series} */ (columns[field]));
    for (const [outcome, values] of Object.entries(columns.outcomes)) history.series.set(`outcomes.${outcome}`, values);
    for (const activity of ACTIVITIES) history.series.set(`held.${activity}`, columns.held[activity]);
    for (const operation of columns.operations) {
      const total = operation.executing.map((value, at) => value + operation.idle[at] + operation.idle_in_transaction[at]);
      history.series.set(`operations.${operation.name}`, total);
    }
    for (const { sqlstate, count } of columns.errors) history.series.set(`errors.${sqlstate}`, count);
    return history;
  }

  /** @param {Row} row */
  push(row) {
    /** @type {Map<string, number | null>} */
    const values = new Map(FIELDS.map((field) => [field, row[field]]));
    for (const [outcome, value] of Object.entries(row.outcomes)) values.set(`outcomes.${outcome}`, value);
    for (const activity of ACTIVITIES) values.set(`held.${activity}`, row.held[activity]);
    for (const operation of row.operations) {
      values.set(`operations.${operation.name}`, operation.executing + operation.idle + operation.idle_in_transaction);
    }
    for (const { sqlstate, count } of row.errors) values.set(`errors.${sqlstate}`, count);
    for (const name of values.keys()) {
      if (!this.series.has(name)) this.series.set(name, new Array(this.length).fill(0));
    }
    for (const [name, series] of this.series) series.push(values.get(name) ?? (FIELDS.includes(/** @type {any} */ (name)) ? null : 0));
    this.length += 1;
    // In portions, since each moves everything.
    if (this.length > MAX_POINTS + 60) this.shorten();
  }

  shorten() {
    const excess = this.length - MAX_POINTS;
    this.length = MAX_POINTS;
    for (const [name, series] of this.series) {
      series.splice(0, excess);
      const isOptional = name.startsWith("operations.") || name.startsWith("errors.");
      if (isOptional && series.every((value) => value === 0)) this.series.delete(name);
    }
  }
}

/** The last point of a pool, and its last minute. */
export class Summary {
  /** @param {Row} last */
  constructor(last) {
    this.last = last;
    /** @type {number[]} */
    this.used = [];
    /** @type {number[]} */
    this.waiting = [];
  }

  /** @param {Row} row */
  push(row) {
    this.last = row;
    this.used.push(row.used);
    this.waiting.push(row.waiting);
    if (this.used.length > LINE_POINTS) {
      this.used.shift();
      this.waiting.shift();
    }
  }

  /** How urgent the pool is: the worst is highest. Of few values, so that the order of a table does not change often. */
  severity() {
    const { cause, waiting, used, max } = this.last;
    return (isProblem(cause) ? 4 : 0) + (waiting > 0 ? 2 : 0) + (used >= max ? 1 : 0);
  }
}

/** Whether a proxy observes the pool, which sees neither checkouts nor what waits for a connection. @param {{ kind: string } | null} pool */
export function isProxied(pool) {
  return pool?.kind === "proxy";
}

/** @param {string | null} cause */
export function isProblem(cause) {
  return cause !== null && cause !== "healthy" && cause !== "not_enough_data";
}

/** All pools, and the one that is shown in detail. */
export class Model {
  constructor() {
    /** @type {Map<string, Summary>} */
    this.pools = new Map();
    /** @type {string | null} */
    this.selected = null;
    /** @type {PoolState | null} */
    this.state = null;
    this.history = new History();
    /** @type {string | null} */
    this.traceUrl = null;
  }

  /** @param {Snapshot} snapshot */
  reset(snapshot) {
    this.traceUrl = snapshot.trace_url;
    this.pools.clear();
    for (const { last, used, waiting } of snapshot.pools) {
      const summary = new Summary(last);
      [summary.used, summary.waiting] = [used, waiting];
      this.pools.set(last.name, summary);
    }
    this.state = snapshot.pool;
    this.history = snapshot.history === null ? new History() : History.of(/** @type {any} */ (snapshot.history));
  }

  /** @param {Delta} delta */
  add(delta) {
    const names = new Set(delta.pools.map((row) => row.name));
    for (const name of this.pools.keys()) if (!names.has(name)) this.pools.delete(name);
    for (const row of delta.pools) {
      let summary = this.pools.get(row.name);
      if (summary === undefined) this.pools.set(row.name, (summary = new Summary(row)));
      summary.push(row);
      if (row.name === this.selected) this.history.push(row);
    }
  }
}
