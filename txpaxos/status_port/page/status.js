// The status page of a node: draws what the node sends. All text is set as text, and no number is made up here but
// differences between two views.
"use strict";

const POINTS_MAX = 120;
const STALE_SECONDS = 5;
const series = { commands: [], slots: [], request: [], sync: [] };
let before = null;
let heardAt = 0;

const at = (id) => document.getElementById(id);
const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };

function made(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Math.round(value * 1e5) / 100} ms`;
  return `${Math.round(value * 10) / 10} s`;
}

function lasting(value) {
  if (value === null || value === undefined) return "–";
  if (value < 120) return `${Math.max(0, Math.round(value))} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86400)} days`;
}

function members(view) {
  const rows = view.members.map((one) => {
    const row = made("tr");
    const state = one.state === "leads" ? "good" : one.state === "not heard" ? "bad" : "";
    const own = one.node === view.node;
    const head = made("th", own ? `${one.node} (this node)` : one.node);
    head.scope = "row";
    row.append(
      head, made("td", one.role), made("td", one.state, state),
      made("td", one.lag_slots === null || one.lag_slots === undefined ? "–" : String(one.lag_slots)),
      made("td", own ? "–" : one.silent_seconds === null ? "never" : `${lasting(one.silent_seconds)} ago`),
      made("td", one.address));
    return row;
  });
  at("members").tBodies[0].replaceChildren(...rows);
}

function facts(view) {
  const told = [
    ["leader", view.leader ?? "none"],
    ["leads for", view.leader_since === null ? "–" : lasting(view.utc_seconds - view.leader_since)],
    ["ballot", view.ballot], ["role of this node", view.role],
    ["voters that may still fail", view.failure_tolerance === null ? "the leader knows" : String(view.failure_tolerance)],
    ["chosen through slot", String(view.chosen_through)], ["applied through slot", String(view.applied_through)],
    ["commands that wait", String(view.waiting)], ["clients", String(view.clients)],
    ["newest snapshot", view.snapshot_slot ? `slot ${view.snapshot_slot}` : "none"],
    ["transfer", view.transfer ?? "none"],
    ["99 % of saves within", seconds(view.seconds.sync.p99)], ["99 % of slots applied within", seconds(view.seconds.apply.p99)],
    ["99 % of commands within", seconds(view.seconds.request.p99)],
    ["99 % of stalls below", seconds(view.seconds.stall.p99)],
    ["runs for", lasting(view.up_seconds)], ["application", view.application],
  ];
  at("facts").replaceChildren(...told.map(([name, value]) => {
    const pair = made("div");
    pair.append(made("dt", name), made("dd", value));
    return pair;
  }));
}

function plot(name, points, shown) {
  const figure = made("figure");
  const caption = made("figcaption");
  const last = points.length ? shown(points[points.length - 1]) : "–";
  caption.append(made("span", name), made("b", last));
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(...points, 1e-9);
  drawing.setAttribute("viewBox", `0 0 ${POINTS_MAX - 1} 100`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `${name}: ${last} now, ${shown(most)} at most`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const left = POINTS_MAX - points.length;
  line.setAttribute("points", points.map((value, index) => `${left + index},${98 - (96 * value) / most}`).join(" "));
  drawing.append(line);
  figure.append(caption, drawing);
  return figure;
}

function plots(view) {
  if (before !== null) {
    const passed = view.utc_seconds - before.utc_seconds;
    if (passed > 0.5) {
      const rate = (name) => Math.max(0, (view[name] - before[name]) / passed);
      series.commands.push(rate("requests_total"));
      series.slots.push(rate("applied_through"));
      series.request.push(view.seconds.request.p99 ?? 0);
      series.sync.push(view.seconds.sync.p99 ?? 0);
      for (const points of Object.values(series)) points.splice(0, points.length - POINTS_MAX);
      before = view;
    }
  } else {
    before = view;
  }
  const count = (value) => `${Math.round(value * 10) / 10} a second`;
  at("plots").replaceChildren(
    plot("requests here", series.commands, count), plot("slots applied", series.slots, count),
    plot("99 % of commands", series.request, seconds), plot("99 % of saves", series.sync, seconds));
}

function show(view) {
  heardAt = Date.now();
  document.title = `${view.node}: ${view.headline}`;
  say(at("cluster"), view.cluster);
  say(at("node"), view.node);
  say(at("headline"), view.headline);
  at("headline").className = view.headline.startsWith("Not ready") || view.failure_tolerance === 0 ? "bad" : "";
  at("troubles").replaceChildren(...view.troubles.map((text) => made("li", text)));
  members(view);
  facts(view);
  plots(view);
  at("recent").replaceChildren(...view.recent.map((one) => {
    const item = made("li");
    const when = made("time", new Date(one.utc_seconds * 1000).toLocaleTimeString());
    when.dateTime = new Date(one.utc_seconds * 1000).toISOString();
    item.append(when, one.text);
    return item;
  }));
}

const source = new EventSource("events");
source.onmessage = (event) => { say(at("link"), "live"); show(JSON.parse(event.data)); };
source.onerror = () => say(at("link"), "the node does not answer; asking again");
setInterval(() => {
  if (heardAt && Date.now() - heardAt > STALE_SECONDS * 1000) {
    say(at("link"), `no news for ${Math.round((Date.now() - heardAt) / 1000)} s: what is shown is old`);
  }
}, 1000);
