// The moment of a recording that the page shows: a slider, the verdicts, and playing.

import { byId, element, resize, setAttribute, setText } from "./dom.js";
import { clock, date, duration } from "./format.js";
import { causeWords, level } from "./verdict.js";

/** Moving the slider requests moments at most this often. */
const SEEK_PAUSE = 150;

export class Replay {
  /**
   * @param {(at: number, isPlaying: boolean) => void} seek is called to show the moment `at`, and to go on from there
   * @param {number | null} at the moment at first; that of the problem if it is `null`
   */
  constructor(seek, at) {
    this.seek = seek;
    /** @type {import("./model.js").Recording | null} */
    this.recording = null;
    /** The moment that was selected or played: up to a second after the one that is shown. @type {number | null} */
    this.at = at;
    this.isPlaying = false;
    this.slider = /** @type {HTMLInputElement} */ (byId("replay-time"));
    this.play = byId("replay-play");
    this.play.addEventListener("click", () => {
      const { begin, end } = this.recording ?? { begin: 0, end: 0 };
      const at = this.at ?? begin;
      // From the beginning if it has been played to its end.
      this.go(at >= end && !this.isPlaying ? begin : at, !this.isPlaying);
    });
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.slider.addEventListener("input", () => {
      this.at = (this.recording?.begin ?? 0) + Number(this.slider.value);
      this.isPlaying = false;
      this.describe();
      this.timer ??= setTimeout(() => {
        this.timer = undefined;
        this.go(this.at ?? 0, false);
      }, SEEK_PAUSE);
    });
    byId("replay-changes").addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button !== null) this.go(Number(button.dataset.time), false);
    });
  }

  /** @param {number} at @param {boolean} isPlaying */
  go(at, isPlaying) {
    this.at = at;
    this.isPlaying = isPlaying;
    this.describe();
    this.seek(at, isPlaying);
  }

  /**
   * Shows that the server replays a recording.
   * @param {import("./model.js").Recording} recording
   * @param {number} at
   */
  begin(recording, at) {
    const isNew = this.recording === null;
    this.recording = recording;
    this.at ??= at;
    byId("replay").hidden = false;
    if (isNew) {
      const { begin, end, incident, truncation, library_version: version } = recording;
      setAttribute(this.slider, "max", String(Math.max(0, Math.round(end - begin))));
      const why = incident === null ? "" : incident.cause === "requested" ? ", requested" : `, begun because of ${causeWords(incident.cause)}`;
      setText(byId("replay-about"), `Recorded on ${date(begin)} from ${clock(begin)} to ${clock(end)} with poolscope ${version || "of an unknown version"}${why}.`);
      byId("replay-truncation").hidden = truncation === null;
      setText(byId("replay-truncation"), `Truncated: ${truncation ?? ""}.`);
      setText(byId("lists-title"), "Holders and waiters at this moment");
    }
    this.describe();
  }

  /** @param {number} time the moment of the last event */
  advance(time) {
    if (this.recording === null) return;
    this.at = time;
    if (time >= this.recording.end) this.isPlaying = false;
    this.describe();
  }

  describe() {
    if (this.recording === null) return;
    const { begin, changes } = this.recording;
    const shown = this.at ?? begin;
    const passed = Math.max(0, shown - begin);
    if (Math.round(passed) !== Number(this.slider.value)) this.slider.value = String(Math.round(passed));
    const text = `${clock(shown)}, ${duration(Math.round(passed))} after the start`;
    setText(byId("replay-moment"), text);
    setAttribute(this.slider, "aria-valuetext", text);
    setText(this.play, this.isPlaying ? "Pause" : "Play");
    const list = byId("replay-changes");
    resize(list, changes.length, () => element("li", {}, element("button", { type: "button" })));
    const current = changes.findLastIndex(({ time }) => time <= shown + 0.01);
    changes.forEach(({ time, cause }, at) => {
      const button = /** @type {HTMLButtonElement} */ (list.children[at].firstElementChild);
      setText(button, `${clock(time)} ${causeWords(cause)}`);
      button.dataset.time = String(time);
      if (button.className !== level(cause)) button.className = level(cause);
      setAttribute(button, "aria-current", at === current ? "true" : null);
    });
  }
}
