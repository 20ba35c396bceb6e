// A ramp: its steps, and the new revision against the control slice.

import { fill, h } from "./dom.js";
import { age, percent, rate, seconds, share, short } from "./format.js";

export function drawRamp(d, now) {
  const r = d.ramp;
  const name = (id) => `@${d.revisions.find((x) => x.revision_id === id)?.sequence ?? "…" + id.slice(-6)}`;
  const compared = h("div", { class: "compared" });
  const words = { running: "Ramp in progress", done: "Ramp done", aborted: "Ramp taken back" };
  const steps = r.steps.map((bps, i) => {
    const passed = r.state === "done" || i < r.step;
    const state = r.state === "aborted" && i === r.step ? "stopped" : passed ? "passed" : i === r.step && r.state === "running" ? "current" : "";
    return h("li", { class: state, "aria-current": state === "current" && "step" }, h("span", { class: "knot" }), h("span", {}, percent(bps)));
  });
  const node = h("section", { class: `ramp ${r.state}`, "aria-label": "ramp" },
    h("header", {}, h("b", {}, words[r.state] ?? r.state), h("span", {}, `${name(r.old)} → ${name(r.to)}`),
      h("span", { class: "quiet", title: r.updated_at }, age(r.updated_at))),
    h("ol", {}, steps), r.reason && h("p", { class: "reason" }, short(r.reason, 300)), compared);

  return {
    node,
    update(latest) {
      if (r.state !== "running") return;
      const fresh = latest.rates.of(r.to), control = latest.rates.of(r.old, true);
      const row = (label, f, limit) => h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, rate(f.perSecond)), h("td", {}, share(f.failed)), h("td", {}, seconds(f.p99)), h("td", { class: "quiet" }, limit));
      fill(compared, h("table", {}, h("thead", {}, h("tr", {}, ["", "rate", "failed", "p99", "limit"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", {}, row(`${name(r.to)}, new`, fresh, `+${share(r.max_errors)} failed, +${share(r.max_p99)} p99`), row("control slice", control, `${r.min_turns} turns at least`))));
    },
  };
}
