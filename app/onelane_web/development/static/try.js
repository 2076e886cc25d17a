"use strict";
// The page to try a bot: it asks for the state of its people, and shows it. All texts are set as texts, never as markup.

const BUSY_MS = 300;
const CALM_MS = 1500;
const HEADER = { "X-Onelane-Try": "1" };

const people = document.getElementById("people");
const channel = document.getElementById("channel");
const service = document.getElementById("service");
const problem = document.getElementById("problem");
const template = document.getElementById("person");
const sections = new Map();
let etag = null;
let timer = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function ask(path, content) {
  const options = { method: "POST", headers: { ...HEADER, "Content-Type": "application/json" }, body: JSON.stringify(content || {}) };
  const answer = await fetch(path, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `the service answers ${answer.status}`);
  return told;
}

async function play(section, played) {
  const problem = section.querySelector(".problem");
  problem.textContent = "";
  try {
    await ask("/try/messages", { channel: channel.value, user: section.dataset.name, ...played });
  } catch (error) {
    problem.textContent = error.message;
  }
  look();
}

function addPerson(name) {
  if (!name || sections.has(name)) return;
  const section = template.content.firstElementChild.cloneNode(true);
  section.dataset.name = name;
  section.querySelector("h2").textContent = name;
  section.setAttribute("aria-label", name);
  section.querySelector(".log").setAttribute("aria-label", `Conversation with ${name}`);
  const input = section.querySelector(".say input");
  input.setAttribute("aria-label", `Message of ${name}`);
  section.querySelector(".say").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    if (input.value.trim()) play(section, { text: input.value });
    input.value = "";
  });
  section.querySelector(".five").addEventListener("click", () => {
    play(section, { text: input.value.trim() || "message", count: 5 });
    input.value = "";
  });
  section.querySelector(".picture").addEventListener("click", () => {
    play(section, { text: input.value, picture: true });
    input.value = "";
  });
  people.append(section);
  sections.set(name, section);
  input.focus();
  look();
}

function words(line) {
  const files = line.attachments.map((file) => `[${[file.kind, file.name].filter(Boolean).join(" ")}]`);
  const happened = line.kind === "event" ? `[${line.event}]` : "";
  const others = Object.keys(line.parts).filter((name) => name !== "buttons").map((name) => `[${name}]`);
  return [happened, line.text || line.button || "", ...files, ...others].filter(Boolean).join("\n") || "(deleted)";
}

function note(line) {
  const state = line.direction === "in" && line.state === "processed" ? "" : line.state;
  const tries = line.attempts ? `${line.attempts} failed attempts` : "";
  return [state, tries, line.last_error || ""].filter(Boolean).join(" · ");
}

function lineOf(section, line) {
  const item = element("li", line.direction);
  item.append(element("span", "bubble", words(line)));
  const choices = line.parts.buttons || [];
  if (choices.length) {
    const row = element("div", "choices");
    for (const choice of choices) {
      const button = element("button", "", choice.title);
      button.type = "button";
      button.value = choice.id;
      button.addEventListener("click", () => play(section, { button: choice.id }));
      row.append(button);
    }
    item.append(row);
  }
  const told = note(line);
  if (told) item.append(element("span", /dead|failed|waiting ·/.test(told) ? "note bad" : "note", told));
  return item;
}

function callOf(call) {
  const item = element("li", "tool");
  const details = element("details");
  details.append(element("summary", "", `Tool: ${call.name}`), element("pre", "", JSON.stringify(call.output, null, 2)));
  item.append(details);
  return item;
}

// Lines that say what they said stay as they are: with the focus, unfolded, and not read aloud again.
function refresh(lines, shown) {
  shown.forEach((item, at) => {
    const there = lines.children[at];
    item.said = item.outerHTML;
    if (!there) lines.append(item);
    else if (there.said !== item.said) there.replaceWith(item);
  });
  while (lines.children.length > shown.length) lines.lastElementChild.remove();
}

function show(section, told) {
  const log = section.querySelector(".log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const sessions = new Map((told ? told.sessions : []).map((session) => [session.id, session]));
  const shown = [];
  let session = null;
  for (const line of told ? told.lines : []) {
    if (line.session_id && line.session_id !== session) {
      if (session) shown.push(element("li", "border", `Session ended: ${(sessions.get(session).ended_reason || "").replaceAll("_", " ")}`));
      session = line.session_id;
      shown.push(element("li", "border", `Session ${session.slice(-6)}`));
    }
    shown.push(lineOf(section, line), ...line.calls.map(callOf));
  }
  const last = session && sessions.get(session);
  if (last && last.status !== "active") {
    shown.push(element("li", "border", last.status === "escalated" ? "A human has this session" : `Session ended: ${last.ended_reason.replaceAll("_", " ")}`));
  }
  refresh(section.querySelector(".lines"), shown);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  section.querySelector(".user").textContent = told ? `${told.sessions.length} session${told.sessions.length === 1 ? "" : "s"}` : "has written nothing yet";
  section.querySelector(".working").hidden = !(told && told.is_working);
}

async function look() {
  clearTimeout(timer);
  let pause = CALM_MS;
  try {
    const query = new URLSearchParams({ channel: channel.value });
    for (const name of sections.keys()) query.append("user", name);
    const answer = await fetch(`/try/state?${query}`, { headers: etag ? { ...HEADER, "If-None-Match": etag } : HEADER, cache: "no-store" });
    if (answer.status === 200) {
      etag = answer.headers.get("ETag");
      const state = await answer.json();
      for (const [name, section] of sections) show(section, state.users[name]);
      service.textContent = state.workers ? "" : "No worker runs: what is sent now waits.";
      problem.textContent = state.problem && `Your change does not run; the bot as it was goes on.\n${state.problem}`;
      const waits = Object.values(state.users).some((told) => told && (told.is_working || told.lines.some((line) => line.state === "waiting")));
      if (waits) pause = BUSY_MS;
    } else if (answer.status !== 304) {
      service.textContent = `The service answers ${answer.status}.`;
    }
  } catch (error) {
    service.textContent = "The service does not answer.";
    etag = null;
  }
  clearTimeout(timer);
  timer = setTimeout(look, pause);
}

document.getElementById("add").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const name = document.getElementById("name");
  addPerson(name.value.trim());
  name.value = "";
});
channel.addEventListener("change", () => {
  etag = null;
  look();
});
for (const button of document.querySelectorAll("[data-act]")) {
  button.addEventListener("click", async () => {
    try {
      await ask(`/try/acts/${button.dataset.act}`);
    } catch (error) {
      service.textContent = error.message;
    }
    look();
  });
}
addPerson("alice");
