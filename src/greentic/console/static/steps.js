// The steps of a turn: node, input, output, time, what components wrote.

import { h } from "./dom.js";
import { seconds, short } from "./format.js";

export function drawSteps(turn, d) {
  const told = turn.told;
  if (!told) return h("p", { class: "quiet empty wait" }, "The turn runs…");
  if (!told.ok) return h("p", { class: "quiet empty" }, "The worker did not take this turn.");
  if (!told.trace) return h("p", { class: "quiet empty" }, "This worker tells no steps to the console: it tells them to callers on its own machine alone.");
  const trace = told.trace, slowest = Math.max(...trace.steps.map((s) => s.seconds), 1e-9);
  const revision = d.revisions.find((r) => r.revision_id === trace.revision_id);
  return [h("header", {}, h("h2", {}, `${trace.steps.length} step${trace.steps.length === 1 ? "" : "s"}`), h("p", { class: "quiet" }, `${seconds(told.seconds)} in all`, revision && `, on @${revision.sequence}`)),
    h("ol", { class: "nodes" }, trace.steps.map((s) => step(s, slowest))),
    trace.left_out > 0 && h("p", { class: "quiet" }, `${trace.left_out} more steps are not told`),
    lines(trace.log, "written by the node that failed"),
    trace.lines_left_out > 0 && h("p", { class: "quiet" }, `${trace.lines_left_out} more lines are not told`)];
}

function step(s, slowest) {
  return h("li", {}, h("details", {}, h("summary", {}, h("b", { title: s.node }, short(s.node, 40)), h("span", { class: "pill" }, short(s.kind, 30)),
    h("span", { class: "took" }, h("i", { css: { width: `${Math.max(2, (100 * s.seconds) / slowest)}%` } })), h("small", {}, seconds(s.seconds))),
  h("dl", {}, h("dt", {}, "input"), h("dd", {}, value(s.input)), h("dt", {}, "output"), h("dd", {}, value(s.output)), h("dt", {}, "then"), h("dd", {}, short(s.then, 120))),
  lines(s.log, "log")));
}

function lines(log, label) {
  return log?.length > 0 && h("div", { class: "lines" }, h("small", {}, label), h("pre", {}, log.map((l) => `${l.source}: ${l.text}`).join("\n")));
}

function value(v) {
  if (v !== null && typeof v === "object" && typeof v.cut === "string" && typeof v.bytes === "number") return h("pre", {}, `${v.cut}\n… ${v.bytes} bytes in all`);
  return h("pre", {}, typeof v === "string" ? v : JSON.stringify(v, null, 2) ?? "nothing");
}
