/** The page of the chain from a home's stick to the stores: who waits for whom. */

import { ask, byId, isolated, keepDoing, make, query, say } from "./page.js";
import { count, lasting, moment } from "./words.js";

const REFRESH_MS = 5_000;
const WORDS = { ok: "Works.", warning: "Look at it.", alarm: "Does not work." };

let nodes = null;
let shown = "";

function partOf({ name, state, text, waiting, since }) {
  const level = state in WORDS ? state : "warning";
  const children = [make("h2", {}, name), make("p", { class: `state ${level}` }, text || WORDS[level])];
  if (waiting) {
    const from = since ? Date.parse(since) : null;
    const line = make("p", { class: "waiting" }, `${count(waiting)} waiting`);
    if (from) {
      const time = make("time", { datetime: since, title: moment(from) }, lasting(Date.now() - from));
      line.append(" for ", time);
    }
    children.push(line);
  }
  return make("li", { class: `part ${level}` }, ...children);
}

function showChain(parts) {
  byId("chain").replaceChildren(...parts.map(partOf));
  const bad = parts.filter((one) => one.state !== "ok");
  say(byId("overall"), bad.length
    ? `Look at: ${bad.map((one) => isolated(one.name)).join(", ")}.`
    : "Everything works.");
}

function showLetters(letters) {
  byId("unknown-letters").hidden = letters !== null;
  byId("no-letters").hidden = letters?.length !== 0;
  byId("letters-table").hidden = !letters?.length;
  byId("letters").replaceChildren(...(letters ?? []).map(({ reason, count: many, service }) => make(
    "tr", {},
    make("th", { scope: "row" }, make("a", { href: `static/reasons.html#${encodeURIComponent(reason)}` }, reason)),
    make("td", {}, make("bdi", {}, service)), make("td", { class: "number" }, count(many)),
  )));
}

/** Fill the picker with the names of homes. */
function offer(names, chosen) {
  if (nodes === names.join("/")) return;
  nodes = names.join("/");
  byId("node").replaceChildren(...names.map((name) => make("option", { value: name }, isolated(name))));
  byId("node").value = chosen;
}

keepDoing(async () => {
  const node = new URLSearchParams(location.search).get("node");
  const chain = await ask("chain", { node });
  byId("empty").hidden = chain.nodes.length > 0;
  byId("view").hidden = !chain.nodes.length;
  if (!chain.nodes.length) return;
  offer(chain.nodes, chain.node);
  const now = JSON.stringify([chain, Math.floor(Date.now() / 60_000)]);
  if (now === shown) return;
  shown = now;
  showChain(chain.parts);
  showLetters(chain.dead_letters);
}, REFRESH_MS);

byId("node").addEventListener("change", (event) => location.assign(`health?${query({ node: event.target.value })}`));
