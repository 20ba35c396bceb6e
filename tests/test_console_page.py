"""The console in a real browser, with a real worker: what is seen, said, pressed and changed. Pictures of it are saved to `.screenshots`.

The pure modules of the page (cards, rates, addresses) are tested where they run.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser import ENTER, TAB, Browser
from conftest import PROGRAMS, ROOT
from greentic.operate import env
from test_programs import Worker, ask, distributor, real  # noqa: F401  (fixtures)

PICTURES = ROOT / ".screenshots"
HOSTILE = "<img src=x onerror=alert(1)>" + "W" * 272

MODULES = """
const model = await import("/static/cards/model.js"), { Rates } = await import("/static/rates.js"), urls = await import("/static/urls.js");
const { drawCard } = await import("/static/cards/draw.js");
const same = (found, wanted, what) => { const [a, b] = [found, wanted].map((v) => JSON.stringify(v)); if (a !== b) throw new Error(`${what}: ${a} is not ${b}`); };
const text = (text, more) => ({ type: "TextBlock", text, ...more });
const read = (...body) => model.readCard({ type: "AdaptiveCard", body });
const kinds = (card) => card.body.map((e) => e.text ?? e.kind);

// fallback: an element, drop, nothing, and the nearest element around it that has one
same(kinds(read({ type: "New", fallback: text("a") }, { type: "New", fallback: "drop" }, text("b"))), ["a", "b"], "fallback");
same(kinds(read({ type: "New", fallback: { type: "Newer", fallback: text("c") } })), ["c"], "fallback of a fallback");
same(kinds(read(text("x", { requires: { adaptiveCards: "9.0" }, fallback: text("old") }), text("y", { requires: { adaptiveCards: "1.2" } }))), ["old", "y"], "requires");
same(kinds(read({ type: "Container", fallback: text("instead"), items: [{ type: "Container", items: [{ type: "New" }] }] })), ["instead"], "bubbling");
const left = read({ type: "Container", items: [{ type: "New" }, text("stays")] });
same([left.body[0].items.length, left.notes], [1, ["left out: an element of the type New"]], "no fallback at all");
same(kinds(read({ type: "constructor" }, { type: "__proto__" }, 5, null, [1])), [], "no elements");
same(model.readCard("x").body, [], "no card"); same(model.readCard(null).actions, [], "no card");

// depth and number
let deep = text("bottom"); for (let i = 0; i < 5000; i++) deep = { type: "Container", items: [deep] };
let card = read(deep), depth = 0; for (let e = card.body[0]; e; e = e.items?.[0]) depth++;
same([depth, card.notes.length], [model.MAX_DEPTH, 1], "depth"); drawCard(card, () => {});
let loop = {}; loop.type = "New"; loop.fallback = loop; same(kinds(read(loop)), [], "a fallback without an end");
same(model.readCard({ type: "AdaptiveCard", body: Array(5000).fill(text("n")) }).body.length, model.MAX_ELEMENTS, "number");

// members of other kinds, and what is too large: told, and no page that stands still
const odd = [{ toString: 1 }, { valueOf: null, toString: null }, [], [[]], { length: 9e9 }, null, true, 1e300, ""];
const members = ["type", "id", "text", "size", "style", "width", "value", "url", "spacing", "items", "columns", "rows", "cells", "facts", "choices", "inlines", "images", "actions", "selectAction", "fallback", "requires", "horizontalAlignment", "maxLength", "min", "max", "targetElements", "card", "title", "isVisible", "version", "body"];
const types = ["TextBlock", "RichTextBlock", "Image", "ImageSet", "Container", "ColumnSet", "FactSet", "Table", "ActionSet", "Input.Text", "Input.Number", "Input.Date", "Input.Time", "Input.Toggle", "Input.ChoiceSet", "Action.Submit", "Action.Execute", "Action.OpenUrl", "Action.ShowCard", "Action.ToggleVisibility"];
for (const type of types) for (const member of members) for (const value of odd) {
  const it = { type, id: "x", [member]: value };
  drawCard(model.readCard({ type: "AdaptiveCard", body: [it], actions: [it], selectAction: it, [member]: value }), () => {});
}
for (const [what, large] of Object.entries({ text: text("\\n".repeat(300_000)), cells: { type: "Table", rows: Array(500).fill({ cells: Array(1000).fill({}) }) }, choices: { type: "Input.ChoiceSet", choices: Array(300_000).fill(1) } }))
  same([model.readCard({ type: "AdaptiveCard", body: [large] }).body.length, model.readCard({ type: "AdaptiveCard", body: [large] }).notes], [0, ["this card is too large to be drawn"]], what);

// addresses
for (const bad of ["javascript:alert(1)", " JaVaScRiPt:alert(1)", "java\\nscript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc", "//evil", "/x", "https://a:b@c", "blob:x", 5, null])
  same(urls.safeUrl(bad), null, `address ${bad}`);
same([urls.safeUrl("https://a.example/x"), urls.pictureUrl("http://a.example/x")], ["https://a.example/x", null], "addresses");

// drawn: every kind; texts are texts
const all = model.readCard({ type: "AdaptiveCard", body: [
  text("<b>no</b> **bold** [bad](javascript:alert(1)) [good](https://a.example/)", { wrap: true }), text("HEAD", { style: "heading" }),
  { type: "RichTextBlock", inlines: ["plain ", { type: "TextRun", text: "<i>run</i>", italic: true }] },
  { type: "Image", url: "javascript:alert(1)", altText: "<u>alt</u>" }, { type: "Image", url: "data:image/png;base64,x" }, { type: "Image", url: "https://a.example/p.png", altText: "tea" },
  { type: "ColumnSet", columns: [{ width: "auto", items: [text("left")] }, { width: 2, items: [text("right")] }] }, { type: "FactSet", facts: [{ title: "k", value: "v" }] },
  { type: "Table", columns: [{ width: 1 }, { width: 1 }], rows: [{ cells: [{ items: [text("h1")] }, { items: [text("h2")] }] }, { cells: [{ items: [text("c1")] }, { items: [text("c2")] }] }] },
  { type: "Container", id: "box", isVisible: false, items: [text("hidden")] },
  { type: "Input.Text", id: "t", label: "T", isRequired: true, errorMessage: "say it", value: "1" }, { type: "Input.Number", id: "n", value: 2 }, { type: "Input.Date", id: "d", value: "2026-01-02" },
  { type: "Input.Time", id: "h", value: "10:30" }, { type: "Input.Toggle", id: "g", title: "G", valueOn: "on", valueOff: "off", value: "on" },
  { type: "Input.ChoiceSet", id: "c", value: "b", choices: [{ title: "A", value: "a" }, { title: "B", value: "b" }] },
  { type: "Input.ChoiceSet", id: "m", isMultiSelect: true, value: "a,b", choices: [{ title: "A", value: "a" }, { title: "B", value: "b" }] },
  { type: "Input.ChoiceSet", id: "r", style: "expanded", value: "a", choices: [{ title: "A", value: "a" }] },
  { type: "ActionSet", actions: [{ type: "Action.ToggleVisibility", title: "Toggle", targetElements: ["box"] }, { type: "Action.OpenUrl", title: "Bad", url: "javascript:alert(1)" }] }],
  actions: [{ type: "Action.ShowCard", title: "More", card: { type: "AdaptiveCard", body: [{ type: "Input.Text", id: "inner", value: "i" }], actions: [{ type: "Action.Submit", title: "Inner", data: { from: "inner" } }] } }, { type: "Action.Submit", title: "Send", data: { action: "go", n: "from data" } }] });
let sent = null; const node = drawCard(all, (data) => (sent = data)); document.body.append(node);
const press = (title) => [...node.querySelectorAll("button")].find((b) => b.textContent === title).click();
same(node.querySelectorAll("b, i:not(.swatch), u, img, script").length, 0, "markup of others");
same([...node.querySelectorAll("a")].map((a) => a.href), ["https://a.example/"], "links");
same([node.querySelector("strong").textContent, node.querySelector("h4").textContent, node.querySelectorAll("th").length, node.querySelectorAll("td").length], ["bold", "HEAD", 2, 2], "drawn");
const box = [...node.querySelectorAll(".container")].at(-1); same(box.hidden, true, "hidden"); press("Toggle"); same(box.hidden, false, "toggled");
same([...node.querySelectorAll("button")].filter((b) => b.textContent === "Bad")[0].disabled, true, "bad link");
press("Send"); same(sent, { action: "go", n: "2", t: "1", d: "2026-01-02", h: "10:30", g: "on", c: "b", m: "a,b", r: "a" }, "submitted");
sent = null; node.querySelector("input[type=text]").value = ""; press("Send"); same([sent, node.querySelector(".wrong:not([hidden])").textContent], [null, "say it"], "required");
node.querySelector("input[type=text]").value = "1"; press("More"); press("Inner"); same([sent.from, sent.inner, sent.t], ["inner", "i", "1"], "inputs of the card around it");
node.remove();

// rates: two answers of one process, several processes, a new beginning
const status = (process, turns, failures = 0, control = null) => [{ answers: true, process, others: [], draining_revisions: [], revisions: [{ revision_id: "R", control, counts: { turns, failures, in_flight: 1, parked: 2, buckets: [turns, 0], bounds: [0.1] } }] }];
const rates = new Rates(); rates.feed(status("a", 100), 0); same(rates.of("R").perSecond, null, "one answer");
rates.feed(status("a", 120, 10), 2000); same([rates.of("R").perSecond, rates.of("R").failed, rates.of("R").p99], [10, 0.5, 0.1], "two answers");
rates.feed([{ ...status("a", 120, 10)[0], others: status("b", 0) }], 2000); rates.feed(status("b", 20), 4000); same([rates.of("R").perSecond, rates.of("R").in_flight], [20, 2], "two processes");
rates.feed(status("a", 5), 4000); same(rates.of("R").perSecond, 11.25, "a count that fell");
same(new Rates().of("R").seen, false, "nothing"); rates.feed([], 99_000); same(rates.of("R").perSecond, null, "long ago");
return "all";
"""


@contextmanager
def console(store: Path, worker: int) -> Iterator[str]:
    """The address that a console prints."""
    words = ["console", "local", "--at", f"http://127.0.0.1:{worker}", "--store-root", str(store), "--allow-changes"]
    process = subprocess.Popen([str(PROGRAMS / "gtc"), *words], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("console: ").strip()
    finally:
        process.terminate()
        assert process.wait(30) == 0


@contextmanager
def load(port: int) -> Iterator[threading.Event]:
    """Clients that come and ask, each once, until it ends; what is given lets them in."""
    stop, go_on = threading.Event(), threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            if go_on.wait(0.05):
                ask(port, "POST", "/", b'{"text":"hi"}')
                stop.wait(0.005)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield go_on
    finally:
        stop.set()
        thread.join()


def fits(page: Browser) -> bool:
    """Whether nothing is wider than the page."""
    return bool(page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.mark.e2e
def test_the_console_in_a_browser(tmp_path, distributor, real, shouting):  # noqa: F811
    root, url = distributor
    (root / "b").write_bytes(shouting.read_bytes())
    deployment, first = real.deployed(shouting, f"{url}/b", bundle_id="hello")
    real.warm(real.stage(deployment, shouting, f"{url}/b"))
    env.update(real.context, env.EnvCreatePayload(environment_id="local", name=HOSTILE))
    PICTURES.mkdir(exist_ok=True)
    worker = Worker(tmp_path / "store", tmp_path)
    page = Browser(tmp_path)
    try:
        with console(tmp_path / "store", worker.port()) as address, load(worker.port()) as clients:
            follow(page, address, deployment, first, clients)
    finally:
        page.close()
        assert worker.stop() == 0


def follow(page: Browser, address: str, deployment: str, first: str, clients: threading.Event) -> None:
    own, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/open/(\S+)", address).groups()  # type: ignore[union-attr]
    host = own.removeprefix("http://")
    for path, headers, code in (("/", {}, 401), ("/", {"Host": "evil.example"}, 403), (f"/open/{token}", {"Host": "evil.example"}, 403)):  # fmt: skip
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == code
        connection.close()
    page.size(1280, 900)
    page.prefers("light")
    page.open(address)
    page.sees("hello")
    clients.set()
    assert page.run("return location.href") == f"{own}/" and page.run("return document.cookie") == ""
    page.until("/[1-9].*\\/s/.test(document.querySelector('.numbers')?.innerText)")
    page.picture(PICTURES / "deployments.png")
    assert page.run("return document.querySelector('main h1').title") == HOSTILE
    assert page.run("return document.querySelectorAll('main img').length") == 0 and fits(page)
    assert page.run(MODULES) == "all"

    page.run(f"location.hash = '#/local/revision/{first}'")
    page.until("document.querySelectorAll('.steps > li').length >= 6")
    page.sees("nobody vouches")
    page.sees("as wanted")
    page.picture(PICTURES / "proof.png")
    page.run("location.hash = '#/local/history'")
    page.sees("traffic set")
    page.picture(PICTURES / "history.png")

    talk(page, deployment)
    page.run("location.hash = '#/local'")
    page.size(400, 860)
    page.prefers("dark")
    page.sees("Talk to it")
    assert fits(page)
    page.picture(PICTURES / "deployments-narrow-dark.png")
    page.size(1280, 900)
    ramp(page, clients)
    page.prefers("light")
    assert page.complaints() == []


def talk(page: Browser, deployment: str) -> None:
    """By keyboard alone: say something, answer a card, look at the steps."""
    page.run(f"location.hash = '#/local/chat/{deployment}'")
    page.type(".say textarea", f"Ada{ENTER}")
    page.sees("ADA!")
    page.until("document.querySelectorAll('.nodes li').length === 2")
    page.type(".say textarea", f"menu{ENTER}")
    page.until("document.activeElement === document.querySelector('.adaptive select')")
    page.run("document.querySelector('.adaptive button.send').click()")
    page.until("document.querySelector('.adaptive .wrong:not([hidden])')")
    page.picture(PICTURES / "chat-card.png")
    page.keys(f"C{TAB}{TAB} {TAB}{ENTER}")  # Coffee, past the cups, milk, the button
    page.sees("1 × coffee, with milk, coming up.")
    page.until("document.querySelector('.beside').innerText.includes('chosen')")
    assert page.run("return [...document.querySelectorAll('.adaptive.sealed')].length") == 1
    page.run("document.querySelector('.nodes details').open = true")
    page.picture(PICTURES / "chat.png")
    page.size(400, 860)
    assert fits(page)
    page.picture(PICTURES / "chat-narrow.png")
    page.prefers("dark")
    page.picture(PICTURES / "chat-narrow-dark.png")
    page.prefers("light")
    page.size(1280, 900)


def ramp(page: Browser, clients: threading.Event) -> None:
    """Begin one from the page and follow it to its end. It holds while nobody asks."""
    clients.clear()
    page.run("[...document.querySelectorAll('.actions button')].find(b => b.textContent === 'Ramp…').click()")
    page.run(
        "const [, steps, pause, , slow, turns] = document.querySelectorAll('dialog .fields input, dialog .fields select');"
        "steps.value = '50%,100%'; pause.value = '1s'; slow.value = '+100000%'; turns.value = 100"
    )
    page.picture(PICTURES / "ramp-begin-dark.png")
    page.click("dialog button.main")
    page.sees("Ramp in progress")
    page.until("document.querySelector('.ramp .compared').innerText.includes('/s')")
    page.picture(PICTURES / "ramp-dark.png")
    clients.set()
    page.sees("Ramp done")
    page.until("document.querySelector('.bars .bar').innerText.includes('@2 · 100 %')")
    page.picture(PICTURES / "ramp-done-dark.png")
