// Where the page's data comes from: the stream of a running exporter, or of one that replays a recording.

/**
 * @typedef {object} Handlers
 * @property {(snapshot: import("./model.js").Snapshot) => void} snapshot
 * @property {(delta: import("./model.js").Delta) => void} delta
 * @property {(pool: import("./model.js").PoolState) => void} pool
 * @property {(status: Status) => void} status
 *
 * @typedef {{ state: "connecting" | "live" | "replay" | "lost" | "refused", message: string }} Status
 */

/** Reconnecting is tried after this time, and then more rarely. */
const FIRST_PAUSE = 1000;
const LAST_PAUSE = 8000;

/** Without an event for this time, the connection is lost: there is one each second. */
const SILENCE = 10000;

/** The stream of the exporter that served this page. */
export class LiveSource {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {string | null} */
    this.pool = null;
    /** The moment of a recording with which the stream begins, or its problem. @type {number | null} */
    this.at = null;
    /** @type {string | null} */
    this.lastId = null;
    this.pause = FIRST_PAUSE;
    /** @type {AbortController | null} */
    this.abort = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /**
   * Begins the stream, or begins it again for another pool.
   * @param {string | null} pool
   * @param {number | null} [at] a moment of a recording
   */
  open(pool, at = null) {
    this.close();
    this.pool = pool;
    this.at = at;
    this.lastId = null;
    this.connect();
  }

  close() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
  }

  async connect() {
    const abort = new AbortController();
    this.abort = abort;
    let refusal = "";
    let isContinued = false;
    try {
      // Unlike `URLSearchParams`, the API takes `+` as it is.
      const query = [this.pool === null ? "" : `pool=${encodeURIComponent(this.pool)}`, this.at === null ? "" : `at=${this.at}`];
      /** @type {Record<string, string>} */
      const headers = this.lastId === null ? {} : { "Last-Event-ID": this.lastId };
      // Unlike `EventSource`, this shows why a stream was refused.
      const response = await fetch(`api/v1/stream?${query.filter((part) => part !== "").join("&")}`, { headers, signal: abort.signal, cache: "no-store" });
      if (!response.ok || !response.body) {
        refusal = await explain(response);
      } else {
        isContinued = await this.read(response.body, abort);
      }
    } catch (error) {
      if (this.abort === abort && !(error instanceof TypeError) && !(error instanceof DOMException)) console.error(error);
    }
    if (this.abort !== abort) return;
    abort.abort();
    if (isContinued) {
      this.connect();
      return;
    }
    this.handlers.status(
      refusal === ""
        ? { state: "lost", message: "connection lost, reconnecting" }
        : { state: "refused", message: refusal },
    );
    this.timer = setTimeout(() => this.connect(), this.pause);
    this.pause = Math.min(2 * this.pause, LAST_PAUSE);
  }

  /**
   * Reads events until the stream ends. Returns whether the server ended it after a delta, as it does with each stream
   * after some minutes; deltas are a second apart, so that this does not happen more often.
   * @param {ReadableStream<Uint8Array>} body
   * @param {AbortController} abort
   */
  async read(body, abort) {
    const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
    let rest = "";
    let hasDelta = false;
    for (;;) {
      const timer = setTimeout(() => abort.abort(), SILENCE);
      const { value, done } = await reader.read().finally(() => clearTimeout(timer));
      if (done || this.abort !== abort) return hasDelta;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        if (event.startsWith("event: delta\n")) hasDelta = true;
        const id = this.dispatch(event);
        // An event may have closed this stream, or begun another one.
        if (this.abort !== abort) return false;
        if (id !== "") this.lastId = id;
      }
    }
  }

  /** Calls the handler of an event, and returns its ID. @param {string} text */
  dispatch(text) {
    let [name, data, id] = ["", "", ""];
    for (const line of text.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data = line.slice(6);
      else if (line.startsWith("id: ")) id = line.slice(4);
    }
    if (data === "") return "";
    const parsed = JSON.parse(data);
    if (name === "snapshot") this.handlers.snapshot(parsed);
    else if (name === "pool") this.handlers.pool(parsed);
    else if (name === "delta") this.handlers.delta(parsed);
    this.pause = FIRST_PAUSE;
    this.handlers.status({ state: "live", message: "live" });
    return id;
  }
}

/** @param {Response} response */
async function explain(response) {
  if (response.status === 401) return "not authorized: reload the page to enter the password again";
  const body = await response.json().catch(() => null);
  const reason = body !== null && typeof body.error === "string" ? body.error : `status ${response.status}`;
  return `refused: ${reason}`;
}
