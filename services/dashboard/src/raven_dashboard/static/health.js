/** The page of the chain from the stick to the stores: who waits for whom. */

import { ask, byId, isolated, keepDoing, make, say } from "./page.js";
import { count, lasting, moment } from "./words.js";

const REFRESH_MS = 5_000;
const WORDS = { ok: "works", warning: "look at it", alarm: "does not work" };

function partOf({ name, state, text, waiting, since }) {
  const level = state in WORDS ? state : "warning";
  const children = [make("h2", {}, name), make("p", { class: `state ${level}` }, text || WORDS[level])];
  if (waiting) {
    const from = since ? Date.parse(since) : null;
    const time = from ? [" for ", make("time", { datetime: since, title: moment(from) }, lasting(Date.now() - from))] : [];
    children.push(make("p", { class: "waiting" }, `${count(waiting)} waiting`, ...time));
  }
  return make("li", { class: `part ${level}` }, ...children);
}

let shown = "";

keepDoing(async () => {
  const { parts, dead_letters: letters } = await ask("chain");
  const now = JSON.stringify([parts, letters, Math.floor(Date.now() / 60_000)]);
  if (now === shown) return;
  shown = now;
  byId("chain").replaceChildren(...parts.map(partOf));
  const bad = parts.filter((one) => one.state !== "ok");
  say(byId("overall"), bad.length
    ? `Look at: ${bad.map((one) => isolated(one.name)).join(", ")}.`
    : "Everything works.");
  byId("no-letters").hidden = letters.length > 0;
  byId("letters-table").hidden = !letters.length;
  byId("letters").replaceChildren(...letters.map(({ reason, count: many, service }) => make(
    "tr", {}, make("th", { scope: "row" }, make("bdi", {}, reason)),
    make("td", {}, make("bdi", {}, service)), make("td", { class: "number" }, count(many)),
  )));
}, REFRESH_MS);
