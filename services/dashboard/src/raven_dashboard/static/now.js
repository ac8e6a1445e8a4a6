/** The page of what flows now. */

import { Chart } from "./chart.js";
import { listen } from "./live.js";
import { ask, askMeters, byId, keepDoing, pick, query, say, sayCost, showStates, unknownHome } from "./page.js";
import { withGaps } from "./rows.js";
import { iso } from "./times.js";
import { exactly, kw, kwh, kwNumber, lasting, money, percent, second } from "./words.js";

const CURVE_MS = 15 * 60_000;
const REFRESH_MS = 30_000;
/** Sticks say the power every 8 to 15 seconds; after a minute without, one is away. */
const OLD_MS = 60_000;
const DIRECTIONS = {
  importing: "▲ Taking from the grid",
  exporting: "▼ Giving to the grid",
  idle: "● Nothing flows",
};

let meters = [];
let current = null;
let zone = "UTC";
let points = [];
let shown = null;
let connected = null;

const chart = new Chart(byId("curve"), {
  read: ({ at, values }) => `${second(at, zone)}: ${values[0] ? kw(values[0][1]) : "no reading"}`,
});

const directionOf = (value) => (value > 0 ? "importing" : value < 0 ? "exporting" : "idle");

function showPower(at, value) {
  if (value === null || at < shown) return;
  shown = at;
  const direction = directionOf(value);
  byId("power").dataset.direction = direction;
  say(byId("kw"), kwNumber(value));
  say(byId("direction"), DIRECTIONS[direction]);
  say(byId("at"), exactly(at, zone));
  showLive();
}

/** Say whether what is shown is live, and if not, why and since when. */
function showLive() {
  const age = Date.now() - shown;
  const old = !shown || age > OLD_MS;
  byId("live").dataset.live = Boolean(connected) && !old;
  let text = "Live";
  if (connected === null) text = "Connecting …";
  else if (!connected) text = "Not live: the connection is lost, trying again";
  else if (!shown) text = "Not live: no reading yet";
  else if (old) text = `Not live: the last reading came ${lasting(age)} ago`;
  say(byId("live"), text);
}

/** Add what came last; a stick tells whole seconds, and may say two powers in one. */
function add(at, value) {
  if (at < points.at(-1)?.at) return;
  if (at === points.at(-1)?.at) points.pop();
  points.push({ at, end: at, values: [[value, value, value]] });
}

function drawCurve() {
  const end = Math.max(points.at(-1)?.at ?? 0, Date.now());
  const span = [end - CURVE_MS, end];
  points = points.filter((one) => one.at >= span[0]);
  const says = `Power of the last ${lasting(CURVE_MS)}; the arrow keys read its values`;
  chart.draw({ rows: withGaps(points), names: ["power"], colours: ["power"], span, zone, says });
}

async function loadCurve() {
  const to = Date.now();
  const span = { from: iso(to - CURVE_MS), to: iso(to), step: "raw" };
  const answer = await ask("demand", { ...current, ...span });
  const heardAlready = points;
  points = [];
  answer.start.forEach((at, index) => add(at * 1000, answer.mean_kw[index]));
  for (const { at, values } of heardAlready) add(at, values[0][1]);
  drawCurve();
  const last = points.at(-1);
  if (last) showPower(last.at, last.values[0][1]);
}

async function loadNow() {
  const now = await ask("now", current);
  if (now.time) showPower(Date.parse(now.time), now.kw);
  const { today, month, currency } = now;
  for (const [name, of] of Object.entries({ today, month })) {
    say(byId(`${name}-delivered`), kwh(of?.delivered_kwh));
    say(byId(`${name}-received`), kwh(of?.received_kwh));
    sayCost(byId(`${name}-cost`), money(of?.cost, currency));
  }
  say(byId("forecast"), kwh(month?.forecast_kwh));
  sayCost(byId("forecast-cost"), money(month?.forecast_cost, currency));
  sayCost(byId("price"), now.price && `${money(now.price.value, now.price.currency, 5)} / kWh`);
  say(byId("link"), percent(now.link_percent));
  byId("link-meter").value = now.link_percent ?? 0;
  byId("link-meter").hidden = now.link_percent === null;
  showStates(byId("states"), now.states);
}

let missed = true;

const refresh = keepDoing(async () => {
  if (!meters.length) {
    ({ meters, zone } = await askMeters());
    if (!meters.length) return "";
    const go = ({ node, meter }) => location.assign(`./?${query({ node, meter })}`);
    const { node, meter } = pick(byId("meter"), meters, go);
    current = { node, meter };
    byId("history").href = `history?${query(current)}`;
    listen(`api/v1/live?${query({ node })}`, { heard, changed, connected: () => link(true), lost: () => link(false) });
  }
  await loadNow();
  if (missed) await loadCurve();
  missed = false;
  if (!shown) say(byId("direction"), "No reading yet");
  return unknownHome(meters);
}, REFRESH_MS);

function heard({ meter, time, kw: value }) {
  if (meter !== current.meter || value === null) return;
  const at = Date.parse(time);
  add(at, value);
  drawCurve();
  showPower(at, value);
}

function changed({ states }) {
  showStates(byId("states"), states);
}

function link(on) {
  if (connected && !on) missed = true;
  connected = on;
  showLive();
  if (on && missed) refresh();
}

setInterval(showLive, 1000);
