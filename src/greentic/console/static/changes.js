// What may be changed from here, where the console was started for it. Every change is a verb of `gtc op`.

import { send } from "./api.js";
import { fill, h, tell } from "./dom.js";
import { percent, short } from "./format.js";

const KEY = () => `console-${crypto.randomUUID()}`;

// The buttons of a deployment, or nothing.
export function actions(d, now) {
  if (!now.allowed) return null;
  const staged = d.revisions.filter((r) => r.lifecycle === "staged" || r.lifecycle === "failed");
  const ready = d.revisions.filter((r) => r.lifecycle === "ready");
  const whole = d.revisions.filter((r) => r.weight_bps === 10000);
  const button = (label, work, off) => h("button", { type: "button", disabled: off, onclick: work }, label);
  return h("span", { class: "actions" },
    staged.length > 0 && button("Warm…", () => choose("Warm a revision", staged, d, "Warm", (r) => begin("warm", { revision_id: r }, now))),
    button("Traffic…", () => traffic(d, ready, now), !ready.length),
    button("Ramp…", () => ramp(d, ready.filter((r) => !whole.includes(r)), now), whole.length !== 1 || ready.length < 2 || d.ramp?.state === "running"),
    button("Roll back…", () => confirmed(`Roll ${short(d.bundle_id)} back to the split before this one?`, "Roll back", () => begin("rollback", { deployment_id: d.deployment_id, idempotency_key: KEY() }, now)), !d.split?.can_go_back));
}

// What runs and what came of the last changes.
export function changesUnderWay(node, now) {
  const running = now.live.changes.filter((c) => c.state === "running"), last = now.live.changes.find((c) => c.state === "failed");
  fill(node, running.map((c) => h("p", { class: "under" }, h("b", {}, `${c.verb} runs`), " ", short(c.said.at(-1) ?? "…", 200))),
    last && last === now.live.changes[0] && h("p", { class: "fault" }, h("b", {}, `${last.verb} was refused: `), short(last.error.message, 400), last.error.hint && [" Next: ", h("code", {}, short(last.error.hint, 200))]));
}

async function begin(verb, payload, now) {
  try {
    await send("/api/change", { verb, payload });
    tell(`${verb}: begun`);
    await now.look();
  } catch (error) {
    tell(error.message + (error.hint ? ` — ${error.hint}` : ""), true);
  }
}

function dialog(title, label, content, act) {
  const fault = h("p", { class: "fault", hidden: true });
  const node = h("dialog", { "aria-label": title }, h("form", { method: "dialog", onsubmit: (e) => {
    e.preventDefault();
    if (e.submitter?.value === "no") return node.close();
    const wrong = act();
    if (!wrong) return node.close();
    fault.hidden = false;
    fill(fault, wrong);
  } }, h("h2", {}, title), content, fault, h("footer", {}, h("button", { value: "no", type: "submit", formnovalidate: true }, "Cancel"), h("button", { value: "yes", type: "submit", class: "main" }, label))));
  node.addEventListener("close", () => node.remove());
  document.body.append(node);
  node.showModal();
}

function confirmed(question, label, act) {
  dialog(label, label, h("p", {}, question), () => void act());
}

function options(revisions, d) {
  return revisions.map((r) => h("option", { value: r.revision_id }, `${short(d.bundle_id, 40)}@${r.sequence} (${r.lifecycle}, …${r.revision_id.slice(-6)})`));
}

function choose(title, revisions, d, label, act) {
  const select = h("select", { "aria-label": "revision" }, options(revisions, d));
  dialog(title, label, h("p", {}, select), () => void act(select.value));
}

function traffic(d, ready, now) {
  const rows = ready.slice(0, 20).map((r) => ({ r, field: h("input", { type: "number", min: 0, max: 100, step: "0.01", value: (r.weight_bps ?? 0) / 100, "aria-label": `percent of @${r.sequence}` }) }));
  dialog("Set traffic", "Set", h("div", { class: "weights" }, rows.map(({ r, field }) => h("label", {}, h("span", {}, `@${r.sequence}`), field, "%"))), () => {
    const entries = rows.map(({ r, field }) => ({ revision_id: r.revision_id, weight_bps: Math.round(Number(field.value) * 100) })).filter((e) => e.weight_bps > 0);
    const sum = entries.reduce((n, e) => n + e.weight_bps, 0);
    if (sum !== 10000) return `The weights are ${percent(sum)} together; expected 100 %.`;
    begin("traffic", { deployment_id: d.deployment_id, entries, idempotency_key: KEY() }, now);
    return "";
  });
}

function ramp(d, revisions, now) {
  const to = h("select", {}, options(revisions, d));
  const fields = { steps: "1%,10%,50%,100%", pause: "5m", max_errors: "1%", max_p99: "+20%", min_turns: "100" };
  const inputs = Object.entries(fields).map(([name, value]) => [name, h("input", { type: name === "min_turns" ? "number" : "text", min: 1, value, required: true })]);
  dialog("Ramp to a revision", "Begin", h("div", { class: "fields" }, h("label", {}, h("span", {}, "to"), to), inputs.map(([name, field]) => h("label", {}, h("span", {}, name.replaceAll("_", " ")), field))), () => {
    const payload = Object.fromEntries(inputs.map(([name, field]) => [name, name === "min_turns" ? Number(field.value) : field.value]));
    begin("ramp", { deployment_id: d.deployment_id, to: to.value, ...payload }, now);
    return "";
  });
}
