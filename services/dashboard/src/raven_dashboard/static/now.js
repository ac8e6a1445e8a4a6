/** The page of what flows now. */

import { Chart, withGaps } from "./chart.js";
import { listen } from "./live.js";
import { ask, byId, keepDoing, pick, query, say, ServiceError, showStates, unknownHome } from "./page.js";
import { iso } from "./times.js";
import { exactly, kw, kwh, kwNumber, lasting, money, percent, second } from "./words.js";

const CURVE_MS = 15 * 60_000;
const REFRESH_MS = 30_000;
const SOON_MS = 2_000;
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
let connected = false;

const chart = new Chart(byId("curve"), {
  read: ({ at, values }) => `${second(at, zone)}: ${values[0] ? kw(values[0][1]) : "no reading"}`,
});

const directionOf = (value) => (value > 0 ? "importing" : value < 0 ? "exporting" : "idle");

function showPower(at, value) {
  if (shown && at < shown) return;
  shown = at;
  const direction = value === null ? null : directionOf(value);
  byId("power").dataset.direction = direction ?? "unknown";
  say(byId("kw"), kwNumber(value));
  say(byId("direction"), DIRECTIONS[direction] ?? "No reading yet");
  say(byId("at"), at ? exactly(at, zone) : "");
  showLive();
}

/** Say whether what is shown is live, and if not, why and since when. */
function showLive() {
  const age = Date.now() - shown;
  const old = !shown || age > OLD_MS;
  byId("live").dataset.live = connected && !old;
  let text = "Live";
  if (!connected) text = "Not live: the connection is lost, trying again";
  else if (!shown) text = "Not live: no reading yet";
  else if (old) text = `Not live: the last reading came ${lasting(age)} ago`;
  say(byId("live"), text);
}

function add(at, value) {
  if (points.length && at <= points.at(-1).at) return;
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
  zone = answer.zone;
  points = [];
  answer.start.forEach((at, index) => {
    if (answer.mean_kw[index] !== null) add(at * 1000, answer.mean_kw[index]);
  });
  drawCurve();
}

async function loadNow() {
  const now = await ask("now", current);
  const currency = now.price?.currency ?? now.currency;
  const last = points.at(-1);
  if (now.time) showPower(Date.parse(now.time), now.kw);
  else if (last) showPower(last.at, last.values[0][1]);
  else showPower(null, null);
  say(byId("today-delivered"), kwh(now.today.delivered_kwh));
  say(byId("today-received"), kwh(now.today.received_kwh));
  say(byId("today-cost"), money(now.today.cost, currency));
  say(byId("month-delivered"), kwh(now.month.delivered_kwh));
  say(byId("month-received"), kwh(now.month.received_kwh));
  say(byId("month-cost"), money(now.month.cost, currency));
  say(byId("forecast"), kwh(now.month.forecast_kwh));
  say(byId("forecast-cost"), money(now.month.forecast_cost, currency));
  say(byId("price"), now.price ? `${money(now.price.value, currency, 5)} / kWh` : "–");
  say(byId("link"), percent(now.link_percent));
  byId("link-meter").value = now.link_percent ?? 0;
  byId("link-meter").hidden = now.link_percent === null;
  showStates(byId("states"), now.states);
}

let follow = null;

/** Look at a meter: its history in the curve, then what comes. */
async function look() {
  byId("history").href = `/history?${query(current)}`;
  await loadCurve();
  await loadNow();
  follow ??= listen(`/api/v1/live?${query(current)}`, { heard, changed, connected: () => link(true), lost: () => link(false) });
}

const refresh = keepDoing(async () => {
  if (!meters.length) {
    ({ meters } = await ask("meters"));
    byId("empty").hidden = meters.length > 0;
    byId("view").hidden = !meters.length;
    if (!meters.length) return "";
    const go = ({ node, meter }) => location.assign(`/?${query({ node, meter })}`);
    const { node, meter } = pick(byId("meter"), meters, go);
    current = { node, meter };
  }
  await (follow ? loadNow() : look());
  return unknownHome(meters);
}, REFRESH_MS);

let soon = 0;
function heard(reading) {
  if (reading.node !== current.node || (reading.meter ?? "") !== current.meter) return;
  if (typeof reading.kw === "number") {
    const at = Date.parse(reading.time);
    add(at, reading.kw);
    drawCurve();
    showPower(at, reading.kw);
  }
  // Registers, prices and the link change what is beside; several at once are asked for once.
  else soon ||= setTimeout(() => { soon = 0; refresh(); }, SOON_MS);
}

function changed({ node, states }) {
  if (node === current.node) showStates(byId("states"), states);
}

function link(on) {
  const back = on && !connected && shown !== null;
  connected = on;
  showLive();
  // What was said meanwhile was heard by nobody.
  if (back) loadCurve().then(loadNow).catch((error) => { if (!(error instanceof ServiceError)) throw error; });
}

setInterval(showLive, 1000);
