/** The login: where to go on, and why it did not work. */

import { byId, say } from "./page.js";
import { lasting } from "./words.js";

const asked = new URLSearchParams(location.search);
const wanted = asked.get("next") ?? "/";
const next = /^\/\w*(\?|$)/.test(wanted) ? wanted : "/";
byId("next").value = next;

if (asked.has("wrong")) {
  const seconds = Number(asked.get("wrong"));
  const wait = seconds > 1 ? ` The next is looked at in ${lasting(1000 * seconds)}.` : "";
  say(byId("wrong"), `This password is not the right one.${wait}`);
  byId("wrong").hidden = false;
} else if ((await fetch("api/openapi.json").catch(() => ({}))).ok) {
  // Who follows a link from elsewhere comes without the session: it is sent from our own pages alone.
  location.replace(`.${next}`);
}
