// Keeps a page current without a reload: every few seconds, while it is looked at and nobody is using it.
"use strict";

const EVERY_MS = 5000;
const main = document.getElementById("main");
let tag = "";

function isInUse() {
  return document.hidden || main.querySelector("details[open]") !== null
    || (document.activeElement !== main && main.contains(document.activeElement))
    || [...main.querySelectorAll("textarea")].some((field) => field.value !== field.defaultValue);
}

async function refresh() {
  if (isInUse()) return;
  const answer = await fetch(location.href, { headers: { "If-None-Match": tag, Accept: "text/html" } });
  if (answer.redirected) return location.reload();
  if (answer.status !== 200) return;
  tag = answer.headers.get("ETag") || "";
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (fresh && !isInUse()) main.replaceChildren(...fresh.childNodes);
}

if (main.hasAttribute("data-polled")) {
  setInterval(() => refresh().catch(() => {}), EVERY_MS);
}
