/** The page of all homes: one line each, trouble first. */

import { listen } from "./live.js";
import { ask, byId, keepDoing, make, query, say, showStates } from "./page.js";
import { count, kw, kwh, lasting, percent } from "./words.js";

const REFRESH_MS = 30_000;
const SOON_MS = 2_000;

let homes = [];
const lines = new Map();

/** Make the line of a home; what changes in it is filled in by `fill`. */
function lineOf(node) {
  const cells = {};
  const cell = (name, title) => (cells[name] = make("td", { "data-title": title }));
  cells.states = make("ul", { class: "states" });
  const line = make(
    "tr", {},
    make("th", { scope: "row" }, make("a", { href: `./?${query({ node })}` }, make("bdi", {}, node))),
    make("td", {}, cells.states),
    cell("power", "Now"), cell("today", "Today"), cell("last", "Last reading"),
    cell("complete", "Complete"), cell("version", "Version"),
  );
  return { line, cells, node: node.toLowerCase() };
}

function fill({ cells }, home) {
  say(cells.power, kw(home.now_kw));
  say(cells.today, kwh(home.today_kwh));
  say(cells.last, home.last ? `${lasting(Date.now() - Date.parse(home.last))} ago` : "never");
  say(cells.complete, percent(home.complete_percent));
  say(cells.version, home.version ?? "–");
  showStates(cells.states, home.states);
}

function search() {
  const wanted = byId("search").value.trim().toLowerCase();
  let found = 0;
  for (const { line, node } of lines.values()) {
    line.hidden = !node.includes(wanted);
    found += !line.hidden;
  }
  const all = `${count(homes.length)} ${homes.length === 1 ? "home" : "homes"}`;
  const trouble = homes.filter((home) => home.states.some((one) => one.level !== "ok")).length;
  say(byId("count"), wanted
    ? `${count(found)} of ${all}`
    : `${all}, ${count(trouble)} with trouble`);
}

const refresh = keepDoing(async () => {
  ({ homes } = await ask("homes"));
  byId("empty").hidden = homes.length > 0;
  byId("view").hidden = !homes.length;
  const gone = new Set(lines.keys());
  for (const home of homes) {
    gone.delete(home.node);
    if (!lines.has(home.node)) lines.set(home.node, lineOf(home.node));
    fill(lines.get(home.node), home);
  }
  for (const node of gone) lines.delete(node);
  const wanted = homes.map((home) => lines.get(home.node).line);
  const there = byId("homes").children;
  if (wanted.length !== there.length || wanted.some((line, index) => line !== there[index])) {
    byId("homes").replaceChildren(...wanted);
  }
  search();
}, REFRESH_MS);

byId("search").addEventListener("input", search);

let soon = 0;
listen("api/v1/live?kind=state", {
  heard: () => {},
  changed: () => { soon ||= setTimeout(() => { soon = 0; refresh(); }, SOON_MS); },
  connected: () => {},
  lost: () => {},
});
