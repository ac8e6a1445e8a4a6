/** The login: where to go on, and why it did not work. */

import { byId, say } from "./page.js";

const asked = new URLSearchParams(location.search);
byId("next").value = asked.get("next") ?? "/";
if (asked.has("wrong")) {
  say(byId("wrong"), "This password is not the right one.");
  byId("wrong").hidden = false;
}
