// Formats values for people. Everything is plain text.

/** @param {number} value */
export function count(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
}

/**
 * A duration with two or three digits, as in `340 µs`, `12 ms`, `4.2 s` or `3 min 5 s`.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(2))} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const [days, hours] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24];
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return `${minutes} min ${rest} s`;
}

/** The names of measures that are a share of something; other ratios are plain numbers. */
const SHARE = /share|_of_/;

/**
 * A measured value with its unit, as in the evidence of a verdict.
 * @param {string} name
 * @param {number} value
 * @param {string} unit
 */
export function measure(name, value, unit) {
  const number = String(Number(value.toPrecision(3)));
  switch (unit) {
    case "seconds":
      return duration(value);
    case "ratio":
      return SHARE.test(name) ? `${Number((value * 100).toPrecision(3))} %` : number;
    case "per_second":
      return `${number} per second`;
    case "connections":
    case "checkouts":
    case "count":
      // The name has the unit.
      return number;
    default:
      return `${number} ${words(unit)}`;
  }
}

/**
 * A name of the API in words: `idle_in_transaction` is `idle in transaction`.
 * @param {string} name
 */
export function words(name) {
  return name.replaceAll("_", " ");
}

/** A sentence with a capital letter, unless it begins with a name. @param {string} text */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * The label of a field of the API, and its value with a unit: `wait_p99_seconds` of 0.0157 is `wait p99` of `16 ms`.
 * @param {string} name
 * @param {unknown} value
 */
export function field(name, value) {
  const isTime = name.endsWith("_seconds");
  const label = words(isTime ? name.slice(0, -"_seconds".length) : name);
  if (typeof value !== "number") return { label, text: String(value ?? "–") };
  return { label, text: measure(name, value, isTime ? "seconds" : SHARE.test(name) ? "ratio" : "count") };
}

/**
 * The day, as in `2026-12-01`.
 * @param {number} unixSeconds
 */
export function date(unixSeconds) {
  const day = new Date(unixSeconds * 1000);
  /** @param {number} part */
  const two = (part) => String(part).padStart(2, "0");
  return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
}

/**
 * The time of day.
 * @param {number} unixSeconds
 */
export function clock(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  /** @param {number} part */
  const two = (part) => String(part).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
