/** What every page has in common: elements, the service's answers, which home is looked at. */

export const byId = (id) => document.getElementById(id);

/** Make an element; strings among the children become text, never markup. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children);
  return made;
}

/** Change a text only where it differs: nothing flickers, no screen reader says it again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Say what something costs; without a price nothing is said of it. */
export function sayCost(element, text) {
  say(element, text ?? "");
  element.closest("[data-cost]").hidden = text === null;
}

/** Say something about the page as a whole, nothing if there is nothing to say. */
export function notice(text) {
  say(byId("notice"), text);
  byId("notice").hidden = !text;
}

const FINE = [{ level: "ok", text: "All is well." }];

/** The list of states in words and symbols; a level that is not known here counts as a warning. */
export function showStates(list, found) {
  const states = found.length ? found : FINE;
  const wanted = states.map((one) => `${one.level} ${one.text}`).join("\n");
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...states.map(({ level, text }) => {
    const known = ["ok", "warning", "alarm"].includes(level) ? level : "warning";
    return make("li", { class: `state ${known}` }, text);
  }));
}

class ServiceError extends Error {}

/** Return the service's answer; parameters without a value are left out. */
export async function ask(what, parameters = {}, signal = undefined) {
  let answer;
  try {
    answer = await fetch(address(what, parameters), { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The dashboard does not answer.");
  }
  if (answer.status === 401) {
    const page = location.pathname.slice(location.pathname.lastIndexOf("/"));
    location.assign(`login?next=${encodeURIComponent(page + location.search)}`);
    return new Promise(() => {});
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new ServiceError(body?.detail ?? `The dashboard answers ${answer.status}.`);
  if (body === null) throw new ServiceError("The dashboard's answer was cut off.");
  return body;
}

/** Ask which meters there are; where there is none the page says what to do. */
export async function askMeters() {
  const found = await ask("meters");
  byId("empty").hidden = found.meters.length > 0;
  byId("view").hidden = !found.meters.length;
  return found;
}

/** Return where the service answers a question. */
export function address(what, parameters) {
  return `api/v1/${what}?${query(parameters)}`;
}

/** Return parameters as a query, those without a value left out. */
export function query(parameters) {
  return new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined),
  );
}

/**
 * Do a thing now and then after each pause, and at once when the page is looked at again.
 *
 * Whoever wants it done while it is being done has it done once more afterwards.
 *
 * What it returns is said on the page.
 */
export function keepDoing(thing, pauseMs) {
  let timer = 0;
  let running = null;
  let again = false;
  const once = async () => {
    try {
      notice((await thing()) ?? "");
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      notice(`${error.message.replace(/[.]?$/, ".")} What you see may be old; trying again.`);
    }
  };
  const run = () => {
    clearTimeout(timer);
    again = running !== null;
    running ??= once().finally(() => {
      running = null;
      if (again) run();
      else timer = setTimeout(run, pauseMs);
    });
    return running;
  };
  document.addEventListener("visibilitychange", () => document.hidden || run());
  addEventListener("online", run);
  run();
  return run;
}

/** Return a name such that its letters, whichever way they run, leave those around it alone. */
export const isolated = (name) => `\u2068${name}\u2069`;

/** Return a name for a home that says which meter where it has several. */
function nameOf({ node, meter }, meters) {
  const several = meters.filter((one) => one.node === node).length > 1;
  return several ? `${isolated(node)}, ${meter ? `meter ${isolated(meter)}` : "no meter named"}` : isolated(node);
}

/** Fill the picker with the meters, choose the one that the address says or the first, return it. */
export function pick(select, meters, changed) {
  const asked = new URLSearchParams(location.search);
  const [node, meter] = [asked.get("node"), asked.get("meter")];
  select.replaceChildren(...meters.map((one, index) => make("option", { value: index }, nameOf(one, meters))));
  const index = meters.findIndex((one) => one.node === node && (meter === null || one.meter === meter));
  select.value = Math.max(index, 0);
  select.onchange = () => changed(meters[select.value]);
  return meters[select.value];
}

/** Return what to say where the address names a home that has no readings. */
export function unknownHome(meters) {
  const node = new URLSearchParams(location.search).get("node");
  if (node === null || meters.some((one) => one.node === node)) return "";
  return `There are no readings of ${isolated(node)}. This is another home.`;
}
