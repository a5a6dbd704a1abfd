// A plot of values over time on a canvas, with a legend of text beside it. Values are stacked areas or lines.

import { element, resize, setText } from "./dom.js";
import { clock } from "./format.js";

/**
 * @typedef {object} Part
 * @property {string} label
 * @property {string} color a name of a colour in the style sheet, as in `blue` for `--blue`
 * @property {import("./model.js").Series} values
 * @property {boolean} [isArea] whether it is an area behind the lines
 *
 * @typedef {object} Content
 * @property {number[]} times
 * @property {Part[]} parts
 * @property {{ label: string, values: import("./model.js").Series } | null} [limit] a dashed line
 *
 * @typedef {object} Options
 * @property {string} id
 * @property {string} title
 * @property {boolean} stacked
 * @property {(value: number) => string} format
 * @property {number} [least] the smallest value that the axis ends at
 * @property {boolean} [isWhole] whether values are whole numbers
 */

const LEFT = 46;
const BOTTOM = 18;
const TOP = 6;

/** A pause between points of more than this many seconds is a gap. */
const GAP = 5;

/** The pixels of a second from which on areas are separated by gaps. */
const MIN_GAP_WIDTH = 3;

export class Chart {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.canvas = element("canvas", { role: "img", "aria-labelledby": `${options.id}-title ${options.id}-legend` });
    this.legend = element("ul", { class: "legend", id: `${options.id}-legend` });
    this.root = element(
      "figure",
      { class: "chart", id: options.id },
      element("figcaption", { id: `${options.id}-title` }, options.title),
      element("div", { class: "plot" }, this.canvas),
      this.legend,
    );
    /** @type {Content} */
    this.content = { times: [], parts: [] };
  }

  /**
   * @param {Content} content
   * @param {{ from: number, to: number, at: number | null }} range in seconds of the Unix epoch; the legend has the values
   *     at `at`, or the last ones
   * @param {Palette} palette
   */
  draw(content, range, palette) {
    this.content = content;
    const index = range.at === null ? content.times.length - 1 : nearest(content.times, range.at);
    this.describe(content, index);
    this.paint(content, range, index, palette);
  }

  /** @param {Content} content @param {number} index */
  describe(content, index) {
    const { format } = this.options;
    const limit = content.limit ? [{ label: content.limit.label, color: "limit", values: content.limit.values }] : [];
    const parts = [...content.parts, ...limit];
    resize(this.legend, parts.length, () =>
      element("li", {}, element("i", { "aria-hidden": "true" }), element("span"), element("b")),
    );
    parts.forEach((part, at) => {
      const [swatch, label, value] = this.legend.children[at].children;
      if (swatch.className !== `c-${part.color}`) swatch.className = `c-${part.color}`;
      setText(label, part.label);
      const shown = part.values[index];
      setText(value, shown === null || shown === undefined ? "–" : format(shown));
    });
  }

  /**
   * @param {Content} content
   * @param {{ from: number, to: number, at: number | null }} range
   * @param {number} index
   * @param {Palette} palette
   */
  paint(content, range, index, palette) {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    const context = canvas.getContext("2d");
    if (width === 0 || height === 0 || context === null) return;
    const ratio = Math.min(globalThis.devicePixelRatio || 1, 3);
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);

    const { times } = content;
    const first = Math.max(0, lowerBound(times, range.from) - 1);
    const layers = this.options.stacked ? stack(content.parts, times.length) : content.parts.map((part) => part.values);
    const shown = [...layers, ...(content.limit ? [content.limit.values] : [])];
    const top = niceMaximum(maximum(shown, first), this.options.least ?? (this.options.isWhole ? 2 : 1), this.options.isWhole ?? false);
    /** @param {number} time */
    const x = (time) => LEFT + ((time - range.from) / (range.to - range.from)) * (width - LEFT);
    /** @param {number} value */
    const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);

    this.paintAxes(context, { width, height, top, range, x, y }, palette);
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, width - LEFT, height);
    context.clip();
    if (this.options.stacked) {
      for (let layer = layers.length - 1; layer >= 0; layer -= 1) {
        const below = layer === 0 ? null : layers[layer - 1];
        context.fillStyle = palette.color(content.parts[layer].color);
        area(context, times, first, layers[layer], below, x, y);
        // A gap between areas separates colours that look alike, where there is room for one.
        if (width - LEFT < MIN_GAP_WIDTH * (range.to - range.from)) continue;
        context.strokeStyle = palette.color("panel");
        context.lineWidth = 0.75;
        line(context, times, first, layers[layer], x, y);
      }
    } else {
      for (const part of content.parts.filter(({ isArea }) => isArea)) {
        context.fillStyle = palette.color(part.color);
        area(context, times, first, part.values, null, x, y);
      }
      context.lineWidth = 1.75;
      content.parts.forEach((part, at) => {
        if (part.isArea) return;
        context.strokeStyle = palette.color(part.color);
        // Later lines are dashed, so that they differ without colour.
        context.setLineDash(at % 2 === 1 ? [6, 3] : []);
        line(context, times, first, part.values, x, y);
      });
      context.setLineDash([]);
    }
    if (content.limit) {
      context.strokeStyle = palette.color("limit");
      context.lineWidth = 1.5;
      context.setLineDash([4, 3]);
      line(context, times, first, content.limit.values, x, y);
      context.setLineDash([]);
    }
    if (range.at !== null && times[index] !== undefined) {
      context.fillStyle = palette.color("ink");
      context.fillRect(Math.round(x(times[index])) - 0.5, TOP, 1, height - TOP - BOTTOM);
    }
    context.restore();
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{ width: number, height: number, top: number, range: { from: number, to: number }, x: (time: number) => number, y: (value: number) => number }} plot
   * @param {Palette} palette
   */
  paintAxes(context, { width, height, top, range, x, y }, palette) {
    context.font = `11px ${palette.font}`;
    context.lineWidth = 1;
    context.strokeStyle = palette.color("line");
    context.fillStyle = palette.color("soft");
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of [0, top / 2, top]) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(LEFT, at);
      context.lineTo(width, at);
      context.stroke();
      context.fillText(this.options.format(value), LEFT - 5, Math.max(at, TOP + 2));
    }
    context.textBaseline = "bottom";
    context.textAlign = "center";
    const span = range.to - range.from;
    const step = [10, 15, 30, 60, 120, 180, 300].find((seconds) => (span / seconds) * 64 <= width - LEFT) ?? 600;
    for (let time = Math.ceil(range.from / step) * step; time <= range.to; time += step) {
      const at = x(time);
      if (at > LEFT + 20 && at < width - 22) context.fillText(step < 60 ? clock(time) : clock(time).slice(0, 5), at, height);
    }
  }
}

/** The colours of the style sheet, read again when the theme changes. */
export class Palette {
  constructor() {
    /** @type {Map<string, string>} */
    this.colors = new Map();
    this.font = "sans-serif";
    this.read();
  }

  read() {
    this.style = getComputedStyle(document.documentElement);
    this.font = getComputedStyle(document.body).fontFamily;
    this.colors.clear();
  }

  /** @param {string} name */
  color(name) {
    let color = this.colors.get(name);
    if (color === undefined) {
      color = this.style?.getPropertyValue(`--${name}`).trim() || "#888";
      this.colors.set(name, color);
    }
    return color;
  }
}

/**
 * Draws a small line of the last minute, without axes.
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} used
 * @param {number[]} waiting
 * @param {number} max
 * @param {Palette} palette
 */
export function sparkline(canvas, used, waiting, max, palette) {
  const [width, height] = [120, 24];
  const context = canvas.getContext("2d");
  if (context === null) return;
  const ratio = Math.min(globalThis.devicePixelRatio || 1, 2);
  if (canvas.width !== width * ratio) [canvas.width, canvas.height] = [width * ratio, height * ratio];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const top = Math.max(max, 1) * 1.5;
  const step = width / 60;
  const begin = width - used.length * step;
  for (let at = 0; at < used.length; at += 1) {
    const bar = (Math.min(used[at] / top, 1) * (height - 2)) | 0;
    context.fillStyle = palette.color("blue");
    context.fillRect(begin + at * step, height - bar, step, bar);
    if (waiting[at] > 0) {
      const more = Math.max(2, (Math.min(waiting[at] / top, 1) * (height - 2)) | 0);
      context.fillStyle = palette.color("red");
      context.fillRect(begin + at * step, Math.max(0, height - bar - more), step, more);
    }
  }
}

/**
 * Sums each part and those below it.
 * @param {Part[]} parts
 * @param {number} length
 * @returns {number[][]}
 */
function stack(parts, length) {
  /** @type {number[][]} */
  const layers = [];
  for (const { values } of parts) {
    const below = layers.at(-1);
    layers.push(Array.from({ length }, (_, at) => (values[at] ?? 0) + (below?.[at] ?? 0)));
  }
  return layers;
}

/** @param {import("./model.js").Series[]} all @param {number} first */
function maximum(all, first) {
  let highest = 0;
  for (const values of all) {
    for (let at = first; at < values.length; at += 1) {
      const value = values[at];
      if (value !== null && value > highest) highest = value;
    }
  }
  return highest;
}

/**
 * Returns the end of an axis with this highest value: it and its half are short numbers.
 * @param {number} value
 * @param {number} least
 * @param {boolean} isWhole
 */
function niceMaximum(value, least, isWhole) {
  if (value <= least) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = isWhole && power === 1 ? [2, 4, 6, 8] : [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8];
  return Number(((steps.find((step) => step * power >= value) ?? 10) * power).toPrecision(3));
}

/** @param {number[]} times @param {number} time */
function lowerBound(times, time) {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** @param {number[]} times @param {number} time */
export function nearest(times, time) {
  const at = lowerBound(times, time);
  const isBefore = at > 0 && (at === times.length || time - times[at - 1] < times[at] - time);
  return isBefore ? at - 1 : at;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} times
 * @param {number} first
 * @param {import("./model.js").Series} values
 * @param {(time: number) => number} x
 * @param {(value: number) => number} y
 */
function line(context, times, first, values, x, y) {
  context.beginPath();
  let isOpen = false;
  for (let at = first; at < times.length; at += 1) {
    const value = values[at];
    if (value === null || value === undefined) {
      isOpen = false;
      continue;
    }
    if (isOpen && times[at] - times[at - 1] <= GAP) context.lineTo(x(times[at]), y(value));
    else {
      context.moveTo(x(times[at]), y(value));
      // A single point is a dot.
      context.lineTo(x(times[at]) + 0.75, y(value));
    }
    isOpen = true;
  }
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} times
 * @param {number} first
 * @param {import("./model.js").Series} values
 * @param {import("./model.js").Series | null} below
 * @param {(time: number) => number} x
 * @param {(value: number) => number} y
 */
function area(context, times, first, values, below, x, y) {
  for (let begin = first; begin < times.length; ) {
    let end = begin + 1;
    while (end < times.length && times[end] - times[end - 1] <= GAP) end += 1;
    context.beginPath();
    for (let at = begin; at < end; at += 1) context.lineTo(x(times[at]), y(values[at] ?? 0));
    for (let at = end - 1; at >= begin; at -= 1) context.lineTo(x(times[at]), y(below?.[at] ?? 0));
    context.closePath();
    context.fill();
    begin = end;
  }
}
