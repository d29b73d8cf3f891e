// The page of `txpaxos play`. It draws what the server says, and sends what the user does. It knows no rule of Paxos.
"use strict";

const ROW = 24;
const GUTTER_MIN = 130;
const COLUMN_MIN = 124; // On a screen that is too small for all columns, the board scrolls.
const AUTO_MILLISECONDS = 700;
let view = null;
let playing = 0;
let saidStep = "";
let queue = Promise.resolve();

// ---------------------------------------------------------------- elements

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) element.append(child);
  return element;
}
const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const find = (id) => document.getElementById(id);

/** A button. Its key is the same each time the page is drawn, so that the focus can stay. */
function button(text, key, click, more) {
  return make("button", { type: "button", "data-key": key, onclick: click, ...more }, text);
}

/** A button for an action. It stands out if the lesson wants just this one. */
function actButton(text, action, label) {
  const wanted = view.lesson && view.lesson.wanted && same(view.lesson.wanted, action);
  const more = { "aria-label": label, class: wanted ? "wanted" : null };
  return button(text, JSON.stringify(action), () => act(action), more);
}

const same = (one, other) => Object.keys(one).length === Object.keys(other).length
  && Object.keys(one).every((name) => one[name] === other[name]);

// ------------------------------------------------------------------ server

async function ask(request) {
  const answer = await fetch("act", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  const said = await answer.json();
  if (said.error || said.trouble) throw new Error(said.error || said.trouble);
  return said;
}

/** Ask for something about this run, after all that was asked before, and draw what comes of it. */
function send(request) {
  queue = queue.then(async () => {
    try {
      view = await ask(view === null ? request : { run: view.run, ...request });
      find("trouble").textContent = "";
      try { history.replaceState(null, "", "#" + view.run); } catch (error) { /* a place without addresses */ }
      drawAll();
    } catch (error) {
      if (playing) { stopPlaying(); drawTime(); }
      find("trouble").textContent = error instanceof TypeError ? "txpaxos play does not answer any more." : error.message;
    }
  });
  return queue;
}

const act = (action) => send({ ask: "act", action });

// ------------------------------------------------------------------ lesson

function drawLesson() {
  const lesson = view.lesson;
  find("lesson-title").textContent = lesson === null ? "Free play"
    : `${lesson.title} (${lesson.number} of ${lesson.steps})`;
  find("lesson-body").replaceChildren(lesson === null ? freePlay() : lessonBody(lesson));
}

function freePlay() {
  return make("p", { class: "text" }, "Deliver messages in any order, lose them, crash nodes. Whatever you do, no two"
    + " values are chosen for the same thing. Begin a lesson above to be shown around.");
}

function lessonBody(lesson) {
  const told = [make("p", { class: "caption" }, lesson.about), make("p", { class: "text" }, lesson.text)];
  if (lesson.left) {
    told.push(make("p", { class: "look" }, "You have left the path of the lesson. Look around as long as you like."));
  } else if (lesson.wanted !== null) {
    told.push(make("p", { class: "look" }, `Your turn. The button is marked below: ${lesson.wanted_words}.`));
  } else {
    told.push(make("p", { class: "look" }, lesson.look));
  }
  if (lesson.checks.length > 0) {
    told.push(make("ul", { "aria-label": "In this run" }, lesson.checks.map((check) =>
      make("li", { class: check.holds ? "holds" : "fails" }, `${check.what}: ${check.is}`.replace(" is: ", " is ")))));
  }
  const next = lesson.left ? "Back to the lesson" : lesson.wanted !== null ? "Do it for me"
    : lesson.done ? "Next" : "Go on";
  const isLast = lesson.done && lesson.number === lesson.steps;
  told.push(make("div", { class: "ways" },
    button("Previous", "lesson-back", () => send({ ask: "back" }), { disabled: lesson.number === 1 }),
    button(next, "lesson-next", () => send({ ask: "next" }), { disabled: isLast }),
    isLast ? make("span", {}, "That was the last step.") : null,
    isLast && following(lesson.name) ? button("Next lesson", "lesson-after", () => begin(following(lesson.name))) : null));
  const source = lesson.excerpt;
  const lines = source.lines.map(([number, line]) => [make("span", { class: "number" }, String(number).padStart(4) + "  "),
    line + "\n"]);
  return make("div", { class: "lesson" },
    make("div", {}, told),
    make("div", {}, make("p", { class: "caption" }, `${source.name}, in ${source.file}`),
      make("pre", { tabindex: "0", role: "region", "aria-label": `Source of ${source.name}` }, lines)));
}

function following(name) {
  const names = [...find("what").options].map((option) => option.value).filter((value) => value.startsWith("lesson "));
  return names[names.indexOf("lesson " + name) + 1];
}

// ------------------------------------------------------------------- nodes

function drawNodes() {
  const nodes = find("nodes");
  nodes.style.gridTemplateColumns = `var(--gutter) repeat(${view.nodes.length}, minmax(0, 1fr))`;
  const typed = new Map([...nodes.querySelectorAll("input")]
    .filter((input) => input.value !== input.defaultValue).map((input) => [input.id, input.value]));
  const both = inBothQuorums();
  nodes.replaceChildren(legend(), ...view.nodes.map((node) => nodeCard(node, typed, both.includes(node.name))));
}

/** The nodes that the argument points at: those of the last sentence about two quorums. */
function inBothQuorums() {
  const shared = view.argument.filter((point) => point.kind === "shared");
  return shared.length > 0 ? shared[shared.length - 1].nodes : [];
}

function legend() {
  const line = (style, end) => draw("svg", { class: "swatch", width: 34, height: 12, "aria-hidden": "true" },
    draw("line", { class: `arrow ${style}`, x1: 0, y1: 6, x2: 28, y2: 6 }), end);
  const entry = (shown, text) => make("li", {}, shown, text);
  return make("ul", { class: "legend", "aria-label": "What the lines of the diagram mean" },
    entry(line("delivered", draw("path", { class: "tip", d: "M34 6L25 2L25 10Z" })), "arrived"),
    entry(line("flying", draw("circle", { class: "tip", cx: 28, cy: 6, r: 5 })), "under way: click to deliver"),
    entry(line("held", draw("circle", { class: "tip held", cx: 28, cy: 6, r: 5 })), "held back"),
    entry(line("lost", draw("path", { class: "cross", d: "M24 2l8 8m0 -8l-8 8" })), "lost"),
    entry(line("quiet", draw("path", { class: "tip quiet", d: "M34 6L25 2L25 10Z" })), "heartbeats"));
}

function nodeCard(node, typed, isShared) {
  const facts = node.up ? node.facts : node.disk.map(([label, value]) => [label + " (on disk)", value]);
  const kinds = ["node", node.up ? "" : "down", node.leads ? "leads" : ""].join(" ").trim();
  return make("article", { class: kinds, "aria-label": `Node ${node.name}` },
    make("h3", {}, node.name, make("small", {}, node.roles)),
    node.leads ? make("div", { class: "badge" }, "leads") : null,
    isShared ? make("div", { class: "shared" }, "in both quorums") : null,
    node.hangs ? make("div", { class: "alarm" }, node.waits ? "disk hangs: saves wait" : "disk hangs") : null,
    make("dl", {}, facts.map(fact), node.wakes_in === null ? null : fact(["timer", `in ${node.wakes_in.toFixed(3)} s`])),
    node.up && node.waits ? make("dl", {}, node.disk.map(([label, value]) =>
      fact([label + " (on disk)", value]))) : null,
    node.may.includes("propose") ? proposal(node, typed) : null,
    make("div", { class: "ways" }, nodeButtons(node)));
}

const fact = ([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value));

function nodeButtons(node) {
  const name = node.name;
  const one = (text, what, label) => actButton(text, { do: what, node: name }, label);
  if (!node.up) return [one("Restart", "restart", `Restart ${name} from its disk`)];
  return [
    node.may.includes("prepare") ? one("Start a ballot", "prepare", `Start a ballot at ${name}`) : null,
    node.may.includes("resend") ? one("Send again", "resend", `Send again from ${name} what is unanswered`) : null,
    node.wakes_in === null ? null : one("Clock ahead", "timer", `Let the clock of ${name} run ahead to its next timer`),
    one("Crash", "crash", `Crash ${name}`),
    node.hangs ? one("Disk goes on", "save", `Let the disk of ${name} go on`)
      : one("Hang disk", "hang", `Have the disk of ${name} hang`),
  ];
}

function proposal(node, typed) {
  const wanted = view.lesson && view.lesson.wanted;
  const isWanted = wanted && wanted.do === "propose" && wanted.node === node.name;
  const id = `value-${node.name}`;
  const input = make("input", { type: "text", id, maxlength: 12, "data-key": id, autocomplete: "off",
    value: isWanted ? wanted.value : "", "aria-label": `Value to propose at ${node.name}` });
  if (typed.has(id)) input.value = typed.get(id);
  return make("form", { onsubmit: (event) => {
    event.preventDefault();
    act({ do: "propose", node: node.name, value: input.value.trim() });
    input.value = input.defaultValue;
  } }, input, make("button", { type: "submit", "data-key": `propose-${node.name}`, class: isWanted ? "wanted" : null,
    "aria-label": `Propose at ${node.name}` }, "Propose"));
}

// ----------------------------------------------------------------- network

function drawNetwork() {
  const under = view.messages.filter((one) => one.fate === "flying");
  find("network-title").textContent = `Under way: ${under.length === 1 ? "1 message" : under.length + " messages"}`;
  find("messages").replaceChildren(...under.map(messageLine));
  const names = view.nodes.map((node) => node.name);
  const choice = (id, chosen) => make("select", { id, "data-key": id, "aria-label": id === "cut-from" ? "Cut the link of"
    : "and of" }, names.map((name) => make("option", { selected: name === chosen }, name)));
  const before = ["cut-from", "cut-to"].map((id) => find(id) && find(id).value);
  const from = choice("cut-from", names.includes(before[0]) ? before[0] : names[0]);
  const to = choice("cut-to", names.includes(before[1]) ? before[1] : names[1]);
  find("links").replaceChildren(
    make("div", { class: "row" }, "Link", from, to,
      button("Cut", "cut", () => act({ do: "cut", node: from.value, other: to.value }))),
    ...view.cut.map(([node, other]) => make("div", { class: "row" }, `${node} and ${other} are cut off.`,
      actButton("Join", { do: "join", node, other }, `Join ${node} and ${other}`))));
}

function messageLine(one) {
  const what = `${one.text} from ${one.from} to ${one.to}`;
  const way = (text, verb) => actButton(text, { do: verb, message: one.number }, `${text}: ${what}`);
  return make("li", {},
    make("div", { class: one.held ? "held" : null }, make("b", {}, `${one.from} → ${one.to} `), one.text,
      one.copy ? " (copy)" : "", one.held ? " (held back)" : ""),
    make("div", { class: "ways" }, way("Deliver", "deliver"), one.held ? way("Release", "release") : way("Hold", "hold"),
      way("Drop", "drop"), way("Double", "double")));
}

// -------------------------------------------------------------------- time

function drawTime() {
  const hasTimers = view.nodes.some((node) => node.wakes_in !== null);
  const range = make("input", { type: "range", min: 0, max: view.places, step: 1, id: "place", "data-key": "place",
    "aria-label": "Place in the run", "aria-valuetext": `${view.place} of ${view.places}`,
    onchange: (event) => send({ ask: "rewind", to: Number(event.target.value) }) });
  range.value = view.place;
  const to = (text, key, place, label) => button(text, key, () => send({ ask: "rewind", to: place }),
    { disabled: place < 0 || place > view.places, "aria-label": label });
  find("time-body").replaceChildren(
    make("div", { class: "row" },
      button("Step", "go", () => send({ ask: "go" })),
      button(playing ? "Pause" : "Play", "play", togglePlaying, { "aria-pressed": String(Boolean(playing)) }),
      hasTimers ? actButton("Let time pass", { do: "time" }, "Let time pass to the next timer") : null,
      hasTimers ? make("span", {}, `${view.time.toFixed(3)} s`) : null),
    make("div", { class: "row" }, to("◀", "one-back", view.place - 1, "One action back"), range,
      to("▶", "one-on", view.place + 1, "One action on"), make("span", {}, `${view.place} of ${view.places}`)));
}

function togglePlaying() {
  if (playing) { stopPlaying(); drawTime(); return; }
  playing = setInterval(() => send({ ask: "go" }), AUTO_MILLISECONDS);
  send({ ask: "go" });
}

function stopPlaying() {
  clearInterval(playing);
  playing = 0;
}

// ---------------------------------------------------------------- argument

function drawArgument() {
  const says = view.lesson ? view.lesson.says : [];
  find("points").replaceChildren(...(view.argument.length === 0
    ? [make("li", {}, `Nothing is proposed yet. Any ${view.quorum} acceptors are a quorum.`)]
    : view.argument.map((point) => make("li", {},
      make("span", { class: `${point.kind} ${says.includes(point.text) ? "said" : ""}`.trim() }, point.text)))));
}

// ----------------------------------------------------------------- diagram

function drawDiagram() {
  const box = find("diagram");
  find("board").style.setProperty("--board", `${GUTTER_MIN + COLUMN_MIN * view.nodes.length}px`);
  const width = box.clientWidth;
  const gutter = Math.min(280, Math.max(GUTTER_MIN, Math.round(width * 0.25)));
  find("nodes").style.setProperty("--gutter", gutter + "px");
  const column = (width - gutter) / view.nodes.length;
  const place = new Map(view.nodes.map((node, index) => [node.name, gutter + column * (index + 0.2)]));
  const height = (view.rows.length + 1) * ROW + 8;
  const y = (row) => row * ROW + ROW / 2 + 6;
  const parts = view.rows.map((row, index) => draw("g", {},
    index % 2 ? draw("rect", { class: "stripe", x: 0, y: index * ROW + 6, width, height: ROW }) : null,
    draw("text", { x: 6, y: y(index) + 4, class: index === view.rows.length - 1 ? "title" : "older" },
      draw("title", {}, row.title), clipped(row.title, gutter - 12))));
  for (const node of view.nodes) {
    const x = place.get(node.name);
    parts.push(draw("line", { class: "life" + (node.up ? "" : " down"), x1: x, x2: x, y1: 6, y2: height - 4 }));
  }
  const before = new Map(); // how many are under way between the same two, so that no tip hides another
  for (const one of view.messages) {
    const pair = `${one.from} ${one.to}`;
    parts.push(arrow(one, place, y, before.get(pair) || 0));
    if (one.fate === "flying") before.set(pair, (before.get(pair) || 0) + 1);
  }
  view.rows.forEach((row, index) => parts.push(...marks(row, place, y(index), column)));
  const last = view.rows[view.rows.length - 1];
  box.replaceChildren(draw("svg", { width, height, role: "img",
    "aria-label": `${view.rows.length} rows. The last one: ${last.title}. The list below says the same in words.` }, parts));
  box.scrollTop = box.scrollHeight;
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = "12px system-ui, sans-serif";
function clipped(text, width) {
  if (pen.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && pen.measureText(text.slice(0, end) + "…").width > width) end -= 1;
  return text.slice(0, end) + "…";
}

function arrow(one, place, y, others) {
  const x1 = place.get(one.from);
  const x2 = place.get(one.to);
  const y1 = y(one.sent);
  const isFlying = one.fate === "flying";
  const share = isFlying ? 0.8 - 0.12 * (others % 6) : one.fate === "lost" ? 0.6 : 1;
  const end = isFlying ? Math.max(view.rows.length - 1, one.sent + 0.6) : Math.max(one.end, one.sent + 0.35);
  const x = x1 + (x2 - x1) * share;
  const yEnd = y(end);
  const style = `${one.held ? "held" : one.fate}${one.is_quiet ? " quiet" : ""}`;
  const shown = [draw("title", {}, `${one.text} from ${one.from} to ${one.to}: ${isFlying ? "under way" : one.fate}`),
    draw("line", { class: `arrow ${style}`, x1, y1, x2: x, y2: yEnd })];
  if (one.fate === "lost") {
    shown.push(draw("path", { class: "cross", d: `M${x - 4} ${yEnd - 4}l8 8m0 -8l-8 8` }));
  } else if (isFlying) {
    shown.push(draw("circle", { class: `tip ${style}`, cx: x, cy: yEnd, r: 5 }));
  } else {
    const angle = Math.atan2(yEnd - y1, x - x1) * 180 / Math.PI;
    shown.push(draw("path", { class: `tip ${style}`, d: "M0 0L-9 -4L-9 4Z", transform: `translate(${x} ${yEnd}) rotate(${angle})` }));
  }
  const click = isFlying ? { onclick: () => act({ do: "deliver", message: one.number }), class: "flying pick" } : {};
  return draw("g", click, shown);
}

function marks(row, place, y, column) {
  const shown = [];
  const names = [...place.keys()];
  for (const [index, name] of names.entries()) {
    const isLast = index + 1 === names.length;
    const isFree = !isLast && !row.marks.some((mark) => mark.node === names[index + 1]);
    const room = column * (isLast ? 0.8 : isFree && index + 2 < names.length ? 2 : isFree ? 1.8 : 1) - 14;
    const own = row.marks.filter((mark) => mark.node === name);
    if (own.length === 0) continue;
    const x = place.get(name);
    shown.push(draw("circle", { class: "dot", cx: x, cy: y, r: 3 }));
    const loudest = ["learn", "lead", "no", "vote", "act", "echo"].find((kind) => own.some((mark) => mark.kind === kind));
    const text = own.map((mark) => mark.text).join(", ");
    shown.push(draw("text", { class: `mark ${loudest}`, x: x + 7, y: y + 4 }, draw("title", {}, text),
      clipped(text, room)));
  }
  return shown;
}

const told = (row) => row.marks.filter((mark) => mark.kind !== "echo").map((mark) => `${mark.node} ${mark.text}`);

function drawRows() {
  find("rows").replaceChildren(...view.rows.map((row) => make("li", {},
    [row.title, ...told(row)].join("; "))));
}

// --------------------------------------------------------------------- all

function drawAll() {
  const key = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  allowCount();
  drawLesson();
  drawNodes();
  drawTime();
  drawNetwork();
  drawArgument();
  drawDiagram();
  drawRows();
  say();
  if (key) restoreFocus(key);
}

/** The focus goes back to the button that was used; if it is gone, to the next message or the lesson. */
function restoreFocus(key) {
  const again = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const spare = key.includes("\"message\"") ? document.querySelector("#messages button") : null;
  const target = again && !again.disabled ? again : spare || document.querySelector("[data-key=go]");
  if (target) target.focus({ preventScroll: true });
}

/** What a screen reader says: the step of the lesson if it is another one, and what happened last. */
function say() {
  const lesson = view.lesson;
  const step = lesson === null ? "" : `${lesson.name} ${lesson.number} ${lesson.done || lesson.left}`;
  const last = view.rows[view.rows.length - 1];
  const happened = [last.title, ...told(last)].join("; ");
  const shown = lesson === null || step === saidStep ? []
    : [`${find("lesson-title").textContent}.`, lesson.text, lesson.done ? lesson.look : ""];
  const news = [...shown, happened].join(" ");
  saidStep = step;
  if (find("news").textContent !== news) find("news").textContent = news;
}

/** A lesson says how many nodes there are, and the paper's roles are always the same. */
function allowCount() {
  const what = find("what").value;
  find("count").disabled = what.startsWith("lesson ") || what === "kind essential";
  if (find("count").disabled && view !== null) find("count").value = view.nodes.length === 5 ? "5" : "3";
}

function begin(what) {
  const [sort, name] = what.split(" ");
  stopPlaying();
  view = null;
  find("what").value = what;
  allowCount();
  return send(sort === "lesson" ? { ask: "begin", lesson: name }
    : { ask: "begin", kind: name, count: Number(find("count").value) });
}

async function start() {
  const known = await ask({ ask: "catalogue" });
  const group = (label, sort, all) => make("optgroup", { label },
    all.map((one) => make("option", { value: `${sort} ${one.name}` }, one.title)));
  find("what").append(group("Lessons", "lesson", known.lessons), group("Free play", "kind", known.kinds));
  find("what").addEventListener("change", allowCount);
  find("choice").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(find("what").value);
  });
  window.addEventListener("resize", () => view && drawDiagram());
  const run = location.hash.slice(1);
  if (run) {
    try {
      view = await ask({ ask: "look", run });
      find("what").value = view.lesson ? `lesson ${view.lesson.name}` : `kind ${view.kind}`;
      allowCount();
      drawAll();
      return;
    } catch (error) { view = null; /* It is not kept any more: begin with the first lesson. */ }
  }
  await begin(find("what").value);
}

start().catch((error) => { find("trouble").textContent = error.message; });
