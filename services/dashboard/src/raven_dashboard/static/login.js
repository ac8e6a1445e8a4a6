/** The login: where to go on, and why it did not work. */

import { byId, say } from "./page.js";
import { lasting } from "./words.js";

const asked = new URLSearchParams(location.search);
byId("next").value = asked.get("next") ?? "/";
if (asked.has("wrong")) {
  const seconds = Number(asked.get("wrong"));
  say(byId("wrong"), `This password is not the right one.${seconds > 1 ? ` The next is looked at in ${lasting(1000 * seconds)}.` : ""}`);
  byId("wrong").hidden = false;
}
