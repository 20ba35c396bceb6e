// The page: which view is shown, and what is asked how often.

import { ask } from "./api.js";
import { drawDeployments } from "./deployments.js";
import { drawChat } from "./chat.js";
import { fill, h, inside, tell } from "./dom.js";
import { drawHistory } from "./history.js";
import { drawProof } from "./proof.js";
import { Rates } from "./rates.js";

const POLL = 2000;
const VIEWS = { "": drawDeployments, history: drawHistory, revision: drawProof, chat: drawChat };

const state = { overview: null, env: null, live: { workers: [], changes: [] }, rates: new Map(), fault: null };
let shown = { key: "", view: null };
let timer = 0;

function place() {
  const [, env, view = "", argument = ""] = location.hash.split("/").map(decoded);
  return { env: env || state.overview?.chosen, view: view in VIEWS ? view : "", argument };
}

function decoded(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

export function at(env, view = "", argument = "") {
  return "#" + ["", env, view, argument].map(encodeURIComponent).join("/").replace(/\/+$/, "");
}

async function look() {
  clearTimeout(timer);
  const here = place();
  try {
    state.overview ??= await ask("/api/environments");
    here.env ??= state.overview.chosen;
    const [env, live] = await Promise.all([
      ask(`/api/environment/${encodeURIComponent(here.env)}`, true),
      ask(`/api/live/${encodeURIComponent(here.env)}`),
    ]);
    state.env = env;
    state.live = live;
    state.fault = null;
    const rates = state.rates.get(here.env) ?? new Rates();
    state.rates.set(here.env, rates);
    rates.feed(live.workers, performance.now());
  } catch (error) {
    state.fault = error;
  }
  show();
  timer = setTimeout(look, document.hidden ? POLL * 5 : POLL);
}

function show() {
  const here = place();
  const main = document.getElementById("view");
  bar(here);
  if (state.env === null || state.env.environment_id !== here.env) {
    if (state.fault) fill(main, notice(state.fault));
    shown = { key: "", view: null };
    return;
  }
  if (state.fault) tell(state.fault.message, true);
  const key = JSON.stringify(here);
  const context = {
    ...state, rates: state.rates.get(here.env) ?? new Rates(), argument: here.argument,
    allowed: state.overview.allow_changes && here.env === state.overview.chosen,
    watched: here.env === state.overview.chosen ? state.overview.workers : [],
    to: (view, argument) => at(here.env, view, argument), look,
  };
  if (shown.key !== key) {
    shown = { key, view: VIEWS[here.view](context) };
    fill(main, shown.view.node);
    document.title = `${here.env} · greentic`;
  }
  shown.view.update(context);
}

function notice(error) {
  return h("section", { class: "notice bad" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message),
    error.hint && h("p", {}, "Next: ", h("code", {}, error.hint)));
}

let drawn = "";

function bar(here) {
  const silent = state.live.workers.filter((w) => !w.answers).length;
  const lamp = state.fault ? "bad" : !state.live.workers.length ? "off" : silent ? "warn" : "good";
  const words = state.fault ? "no answer" : !state.live.workers.length ? "no worker is watched"
    : `${state.live.workers.length - silent} of ${state.live.workers.length} worker${state.live.workers.length > 1 ? "s" : ""} answer${state.live.workers.length - silent === 1 ? "s" : ""}`;
  const key = JSON.stringify([here, lamp, words, state.overview]);
  if (key === drawn) return;
  drawn = key;
  const names = state.overview?.environments ?? [];
  const choice = h("select", { "aria-label": "environment", onchange: (e) => (location.hash = at(e.target.value)) },
    names.map((name) => h("option", { value: name, selected: name === here.env }, name)));
  const tab = (view, label) => inside(at(here.env ?? "", view), { class: "tab", "aria-current": here.view === view && "page" }, label);
  const mark = h("img", { src: "/static/mark.svg", alt: "", width: 24, height: 24 });
  fill(document.getElementById("bar"), h("div", { class: "brand" }, mark, h("span", { class: "word" }, "greentic"), choice),
    h("nav", { "aria-label": "views" }, tab("", "Deployments"), tab("history", "History")),
    h("div", { class: "lamp" }, h("span", { class: `dot ${lamp}` }), h("span", {}, words),
      state.overview?.allow_changes && h("span", { class: "pill warn", title: "started with --allow-changes" }, "may change")));
}

addEventListener("hashchange", () => {
  look();
  document.getElementById("view").focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.addEventListener("visibilitychange", () => document.hidden || look());
look();
