// A card as elements of the page. What it may hold was decided in model.js; here every text is a text.

import { send } from "../api.js";
import { fill, h, link, tell } from "../dom.js";
import { spans, submitted } from "./model.js";

let made = 0;
const ALERT = "please fill this in";

// `submit(data)` is called when somebody presses a button that sends.
export function drawCard(model, submit) {
  const root = h("div", { class: "adaptive" });
  const scope = { inputs: [], parent: null, ids: new Map(), submit, root };
  root.append(...card(model, scope));
  for (const note of model.notes) root.append(h("p", { class: "note" }, note));
  return root;
}

// No more of this card can be sent: it was answered.
export function seal(node) {
  node.classList.add("sealed");
  for (const field of node.querySelectorAll("input, select, textarea, button.send")) field.disabled = true;
}

function card(model, scope) {
  const body = h("div", { class: "body" }, model.body.map((e) => element(e, scope)));
  return [pressable(body, model.select, scope), actions(model.actions, scope)].filter(Boolean);
}

function element(e, scope) {
  const node = DRAWN[e.kind](e, scope);
  node.classList.add("element", `space-${e.spacing}`);
  if (e.separator) node.classList.add("ruled");
  if (!e.visible) node.hidden = true;
  if (e.id) scope.ids.set(e.id, [...(scope.ids.get(e.id) ?? []), node]);
  return node;
}

function styled(text) {
  return [text.size !== "default" && `size-${text.size}`, text.bolder !== "default" && text.bolder, text.color !== "default" && `ink-${text.color}`, text.subtle && "subtle", text.mono && "mono"].filter(Boolean).join(" ");
}

function marked(text) {
  return spans(text).map((s) => (s.url ? link(s.url, {}, s.text) : s.bold ? h("strong", {}, s.text) : s.italic ? h("em", {}, s.text) : s.text));
}

function lines(text) {
  const rows = text.split(/\r?\n/);
  if (!rows.some((r) => /^\s*[-*] /.test(r))) return rows.flatMap((r, i) => [i > 0 && h("br"), marked(r)]);
  return rows.map((r) => (/^\s*[-*] /.test(r) ? h("span", { class: "item" }, marked(r.replace(/^\s*[-*] /, ""))) : h("span", { class: "plain" }, marked(r))));
}

function pressable(node, action, scope) {
  if (!action) return node;
  if (action.kind === "Action.OpenUrl" && !action.url) return node;
  node.classList.add("pressable");
  node.tabIndex = 0;
  node.setAttribute("role", action.kind === "Action.OpenUrl" ? "link" : "button");
  if (action.title) node.setAttribute("aria-label", action.title);
  const work = (e) => {
    if (e.target !== node && e.target.closest("a, button, input, select, textarea, [role=button]") !== node) return;
    e.preventDefault();
    act(action, scope, node);
  };
  node.addEventListener("click", work);
  node.addEventListener("keydown", (e) => (e.key === "Enter" || e.key === " ") && e.target === node && work(e));
  return node;
}

const DRAWN = {
  TextBlock(e) {
    const node = h(e.heading === "heading" ? "h4" : "p", { class: `text ${styled(e)} align-${e.align}${e.wrap ? "" : " oneline"}` }, e.wrap ? lines(e.text) : marked(e.text.replace(/\s+/g, " ")));
    if (e.wrap && e.maxLines) node.style.setProperty("--lines", e.maxLines);
    if (e.wrap && e.maxLines) node.classList.add("clamped");
    return node;
  },
  RichTextBlock(e, scope) {
    return h("p", { class: `text align-${e.align}` }, e.runs.map((r) => pressable(h("span", { class: [styled(r), r.italic && "italic", r.strike && "strike", r.underline && "underline", r.highlight && "highlight"].filter(Boolean).join(" ") }, r.text), r.select, scope)));
  },
  Image(e, scope) {
    const box = h("div", { class: `picture size-${e.size} align-${e.align}${e.person ? " person" : ""}` });
    const name = e.alt || "picture";
    if (!e.url) return fill(box, h("span", { class: "quiet", title: "only https addresses are fetched" }, `${name} (not shown: its address is not one that is fetched)`));
    const show = h("button", { type: "button", title: `${e.url}\nis fetched by the console when you press` }, `Show ${name}`, h("small", {}, new URL(e.url).host));
    show.addEventListener("click", async () => {
      show.disabled = true;
      try {
        const answer = await send("/api/picture", { url: e.url });
        const address = URL.createObjectURL(await answer.blob());
        const image = h("img", { src: address, alt: e.alt });
        image.addEventListener("load", () => URL.revokeObjectURL(address));
        fill(box, pressable(image, e.select, scope));
      } catch (error) {
        show.disabled = false;
        tell(error.message, true);
      }
    });
    return fill(box, show);
  },
  Container(e, scope) {
    return pressable(h("div", { class: `container tone-${e.style || "none"}${e.across ? " across" : ""}` }, e.items.map((i) => element(i, scope))), e.select, scope);
  },
  ColumnSet(e, scope) {
    return pressable(h("div", { class: `columns tone-${e.style || "none"}` }, e.columns.map((c) => {
      const column = h("div", { class: `column tone-${c.style || "none"}${c.width === "auto" ? " narrow" : ""}` }, c.items.map((i) => element(i, scope)));
      if (typeof c.width === "number") column.style.flexGrow = c.width;
      else if (c.width.endsWith("px")) column.style.flex = `0 0 ${c.width}`;
      if (!c.visible) column.hidden = true;
      if (c.id) scope.ids.set(c.id, [...(scope.ids.get(c.id) ?? []), column]);
      return pressable(column, c.select, scope);
    })), e.select, scope);
  },
  FactSet(e) {
    return h("dl", { class: "facts" }, e.facts.map((f) => [h("dt", {}, marked(f.title)), h("dd", {}, marked(f.value))]));
  },
  Table(e, scope) {
    const cell = (name, items) => h(name, name === "th" ? { scope: "col" } : {}, items.map((i) => element(i, scope)));
    const [head, rest] = e.headed ? [e.rows.slice(0, 1), e.rows.slice(1)] : [[], e.rows];
    return h("div", { class: "scroll" }, h("table", { class: e.lines ? "lined" : "" },
      head.length > 0 && h("thead", {}, head.map((r) => h("tr", {}, r.map((c) => cell("th", c))))),
      h("tbody", {}, rest.map((r) => h("tr", {}, r.map((c) => cell("td", c)))))));
  },
  ActionSet(e, scope) {
    return actions(e.actions, scope) ?? h("div");
  },
  "Input.Text"(e, scope) {
    const control = e.lines ? h("textarea", { rows: 3 }) : h("input", { type: e.form });
    if (e.most) control.maxLength = e.most;
    control.placeholder = e.placeholder;
    control.value = e.value;
    return field(e, scope, control, () => control.value);
  },
  "Input.Number"(e, scope) {
    const control = h("input", { type: "number", step: "any", min: e.min, max: e.max });
    control.placeholder = e.placeholder;
    control.value = e.value;
    return field(e, scope, control, () => control.value);
  },
  "Input.Date"(e, scope) {
    const control = h("input", { type: "date", min: e.min || null, max: e.max || null });
    control.value = e.value;
    return field(e, scope, control, () => control.value);
  },
  "Input.Time"(e, scope) {
    const control = h("input", { type: "time", min: e.min || null, max: e.max || null });
    control.value = e.value;
    return field(e, scope, control, () => control.value);
  },
  "Input.Toggle"(e, scope) {
    const control = h("input", { type: "checkbox" });
    control.checked = e.value === e.on;
    const node = field({ ...e, label: e.label }, scope, h("label", { class: "choice" }, control, h("span", {}, e.title || e.label || e.id)), () => (control.checked ? e.on : e.off), control);
    return node;
  },
  "Input.ChoiceSet"(e, scope) {
    const chosen = new Set(e.many ? e.value.split(",") : [e.value]);
    if (!e.expanded && !e.many) {
      const control = h("select", {}, !chosen.has("") && e.choices.some((c) => chosen.has(c.value)) ? null : h("option", { value: "" }, e.placeholder || "choose"),
        e.choices.map((c) => h("option", { value: c.value, selected: chosen.has(c.value) }, c.title)));
      return field(e, scope, control, () => control.value);
    }
    const name = `choice-${++made}`;
    const controls = e.choices.map((c) => {
      const control = h("input", { type: e.many ? "checkbox" : "radio", name, value: c.value });
      control.checked = chosen.has(c.value);
      return { control, node: h("label", { class: "choice" }, control, h("span", {}, c.title)) };
    });
    const group = h("div", { class: "choices", role: e.many ? "group" : "radiogroup", "aria-label": e.label || e.id }, controls.map((c) => c.node));
    return field(e, scope, group, () => controls.filter((c) => c.control.checked).map((c) => c.control.value).join(","), controls[0]?.control ?? group);
  },
};

function field(e, scope, node, value, control = node) {
  const fault = h("p", { class: "wrong", hidden: true, id: `wrong-${++made}` });
  const id = `field-${made}`;
  control.id = id;
  control.setAttribute?.("aria-describedby", fault.id);
  if (!e.label && !node.matches(".choice, .choices")) control.setAttribute("aria-label", e.placeholder || e.id || "input");
  scope.inputs.push({
    id: e.id, value, control,
    check() {
      const bad = (e.required && value() === "") || (control.validity !== undefined && !control.validity.valid);
      fault.hidden = !bad;
      fill(fault, bad && (e.error || control.validationMessage || ALERT));
      control.setAttribute("aria-invalid", String(bad));
      return !bad;
    },
  });
  return h("div", { class: "field" }, e.label && h("label", { for: id, class: "label" }, e.label, e.required && h("span", { class: "star", title: "required" }, " *")), node, fault);
}

function actions(models, scope) {
  if (!models.length) return null;
  const shown = h("div", { class: "shown-cards" }), row = h("div", { class: "row", role: "group" });
  for (const model of models.slice(0, 50)) {
    const label = model.title || { "Action.Submit": "Send", "Action.OpenUrl": "Open", "Action.ShowCard": "More", "Action.ToggleVisibility": "Show" }[model.kind];
    const button = h("button", { type: "button", class: `${model.tone}${model.kind === "Action.Submit" ? " send" : ""}`, disabled: !model.enabled || (model.kind === "Action.OpenUrl" && !model.url),
      title: model.kind === "Action.OpenUrl" ? model.url ?? "this address is not opened here" : model.hint || null }, label);
    if (model.kind === "Action.ShowCard") {
      const inner = { inputs: [], parent: scope, ids: scope.ids, submit: scope.submit, root: scope.root };
      const box = h("div", { class: "inner", hidden: true }, card(model.card, inner));
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => {
        const opening = box.hidden;
        for (const other of shown.children) other.hidden = true;
        for (const other of row.children) if (other.hasAttribute("aria-expanded")) other.setAttribute("aria-expanded", "false");
        box.hidden = !opening;
        button.setAttribute("aria-expanded", String(opening));
      });
      shown.append(box);
    } else button.addEventListener("click", () => act(model, scope, button));
    row.append(button);
  }
  return h("div", { class: "card-actions" }, row, shown);
}

function act(model, scope) {
  if (model.kind === "Action.OpenUrl" && model.url) open(model.url, "_blank", "noopener,noreferrer");
  if (model.kind === "Action.ToggleVisibility") for (const target of model.targets) for (const node of scope.ids.get(target.id) ?? []) node.hidden = target.visible === null ? !node.hidden : !target.visible;
  if (model.kind === "Action.Submit") {
    const fields = [];
    for (let s = scope; s && model.inputs === "auto"; s = s.parent) fields.push(...s.inputs);
    const wrong = fields.filter((f) => !f.check());
    if (wrong.length) return wrong[0].control.focus?.();
    const values = Object.create(null);
    for (const f of fields) if (f.id) values[f.id] = f.value();
    scope.submit(submitted(model.data, values), model.title);
  }
}
