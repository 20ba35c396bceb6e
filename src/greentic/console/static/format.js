// Numbers, times and names as people read them. Pure.

export function percent(bps) {
  const share = bps / 100;
  return `${Number.isInteger(share) ? share : share.toFixed(share < 1 ? 2 : 1)} %`;
}

export function share(part) {
  if (part === null || part === undefined) return "–";
  if (part === 0) return "0 %";
  const value = part * 100;
  return `${value < 0.1 ? "<0.1" : value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  if (perSecond === 0) return "0 /s";
  if (perSecond < 0.1) return `${(perSecond * 60).toFixed(1)} /min`;
  return `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString("en")} /s`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return "> 10 s";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
  return `${+value.toPrecision(3)} s`;
}

export function age(stamp, now = Date.now()) {
  const then = Date.parse(stamp);
  if (Number.isNaN(then)) return "";
  const past = Math.max(0, (now - then) / 1000);
  for (const [size, unit] of [[86400 * 365, "y"], [86400 * 30, "mo"], [86400, "d"], [3600, "h"], [60, "min"]]) {
    if (past >= size) return `${Math.floor(past / size)} ${unit}`;
  }
  return "now";
}

export function digest(text) {
  return String(text).replace(/^sha256:/, "").slice(0, 12);
}

// What would turn the direction of reading, and with it what stands beside it.
const TURNING = /[\u0000-\u0008\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

// A name of any length for one line; the whole stands in the title. What would turn it or its neighbours is written out.
export function short(name, most = 64) {
  const letters = [...String(name).replace(TURNING, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)];
  return letters.length <= most ? letters.join("") : `${letters.slice(0, most - 1).join("")}…`;
}

export function clock(stamp) {
  const then = new Date(stamp);
  if (Number.isNaN(then.getTime())) return String(stamp);
  return then.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function day(stamp) {
  const then = new Date(stamp);
  if (Number.isNaN(then.getTime())) return "";
  return then.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "long", year: "numeric" });
}
