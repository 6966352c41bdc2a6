// The page: messages into the store, the store onto the page, controls. Everything else is in the
// modules that it puts together.

import { Timeline } from "./chart.js";
import { Link } from "./link.js";
import { showEvents, showHealth, showKept, showScore, showWords } from "./panels.js";
import { LIMIT, Store } from "./store.js";
import { clock, plain, sentence, short, signed } from "./words.js";

const find = (name) => document.getElementById(name);
/** More new points than this are not added one by one. */
const MANY = 40;
/** Seconds between two things said to a screen reader. */
const CALM = 10;
/** Seconds of words that are shown, and by how much they may be ahead of the newest score. */
const WORDS = 20;
const AHEAD = 5;
/** Pages of a past session that are fetched at most. */
const PAGES = 40;
/** How sources are named that a page fills; only then is there a page to do it. */
const SENDER = "sender's ";

const live = new Store();
let shown = live;
let moment = null; // the point that is looked at; null: the newest
let isPaused = false;
let isDue = false;
let fresh = 0; // live points that the timeline has not got yet
let span = 300;

let linked = { state: "connecting", detail: "" };

const timeline = new Timeline(find("chart"), (time) => look(nearest(time)));

// ---- what is shown ------------------------------------------------------------------------

const hop = () => shown.hello?.hop ?? 0.5;
const isHeard = () => linked.state === "live" && !live.end;

function nearest(time) {
  let low = 0;
  for (let high = shown.points.length - 1; low < high; ) {
    const middle = (low + high) >> 1;
    if (shown.points[middle].at < time) low = middle + 1;
    else high = middle;
  }
  return shown.points[low] ?? null;
}

/** Draw once per frame at most, however many messages came. */
function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (shown === live && !isPaused) catchUp();
    const point = moment ?? shown.newest;
    if (!isPaused || moment) showPoint(point);
    showHealth(shown, shown !== live || isHeard());
    showKept(shown, LIMIT);
    drawControls();
  });
}

/** Add what came since the last frame; after a long pause (a hidden tab) the whole is quicker. */
function catchUp() {
  if (fresh > MANY) redraw();
  else for (const point of fresh ? live.points.slice(-fresh) : []) timeline.add(point);
  fresh = 0;
}

function showPoint(point) {
  showScore(point?.message);
  // Words come between two scores as well; those of a past moment end with it.
  const from = point?.at ?? 0;
  const { words, tail } = shown.wordsBefore(moment ? from : from + AHEAD, WORDS);
  showWords({ words, tail: moment ? "" : tail }, point?.message.attention.text ?? []);
}

function drawControls() {
  find("moment").textContent = place();
  document.querySelector("main").classList.toggle("still", shown === live && !moment && !isHeard());
  const scrub = find("scrub");
  scrub.max = Math.max(0, shown.points.length - 1);
  const index = moment ? shown.points.indexOf(moment) : shown.points.length - 1;
  scrub.value = index;
  const point = moment ?? shown.newest;
  scrub.setAttribute("aria-valuetext", point ? `${clock(point.at)}: ${sentence(point.message)}` : "nothing yet");
  find("live").disabled = moment === null && shown === live && !isPaused;
}

/** Which score is shown: only a link that is heard has a live one. */
function place() {
  if (moment) return `at ${clock(moment.at)}`;
  if (isPaused) return "paused";
  if (shown === live && isHeard()) return "live";
  return shown.newest ? `last, ${clock(shown.newest.at)}` : "no score yet";
}

function look(point) {
  moment = point;
  draw();
}

function goLive() {
  moment = null;
  setPaused(false);
  show(live);
}

function show(store) {
  shown = store;
  moment = null;
  fresh = 0;
  timeline.set(store.points, store.events, hop());
  timeline.show(span);
  showEvents(store.events);
  find("banner").hidden = store === live;
  find("banner").textContent = store === live ? "" : `Past session ${store.session}: nothing here is live.`;
  showAbout();
  showLink();
  draw();
}

function setPaused(value) {
  isPaused = value;
  find("pause").setAttribute("aria-pressed", String(value));
  find("pause").textContent = value ? "Resume" : "Pause";
  if (!value && shown === live) show(live);
  draw();
}

// ---- messages -----------------------------------------------------------------------------

function take(message) {
  const changed = live.take(message);
  if (changed === "event") say(`${plain(message.event)} ${message.modality ?? ""}`.trim());
  if (message.type === "hello") showAbout();
  if (changed === "fresh" || changed === "session_end") showLink();
  if (shown !== live) return;
  if (changed === "fresh") show(live);
  if (isPaused) return draw();
  if (changed === "point") fresh += 1;
  if (changed === "points") fresh = Infinity;
  if (changed === "event") {
    timeline.mark(live.events);
    showEvents(live.events);
  }
  if (changed === "point" && live.newest.message.label !== said.label) sayLabel();
  draw();
}

function redraw() {
  if (moment && !live.points.includes(moment)) moment = null;
  timeline.set(live.points, live.events, hop());
  if (moment) timeline.show(span, moment.at + span / 2);
}

/** Name the session that is shown; the history gives no hello with its messages. */
function showAbout() {
  const { session, hello } = shown;
  const name = `${shown === live ? "" : "past "}session ${session}`;
  const facts = hello ? [hello.sources.map(short).join(", "), hello.checkpoint] : [];
  find("about").textContent = session ? [name, ...facts].join(" · ") : "";
  find("capture").hidden = !live.hello?.sources.some((source) => source.startsWith(SENDER));
}

const said = { at: -Infinity, label: null };

function say(text) {
  find("said").textContent = text;
}

/** Tell a screen reader that the label changed, but not twice within ten seconds. */
function sayLabel() {
  const now = performance.now() / 1000;
  if (now - said.at < CALM) return;
  said.at = now;
  said.label = live.newest.message.label;
  say(`Sentiment ${live.newest.message.label ?? "unknown"}, ${signed(live.newest.score, 1)}`);
}

// ---- the link and the token ----------------------------------------------------------------

const STATES = { connecting: "connecting", live: "live", waiting: "reconnecting", token: "token wanted" };
const scheme = location.protocol === "https:" ? "wss:" : "ws:";

/** Say how the link is; that a session has ended says more than that its link is gone. */
function showLink() {
  const { state, detail } = linked;
  const isEnded = live.end !== null && state !== "token";
  const why = detail && state !== "token" ? `: ${detail}` : "";
  const text = shown !== live && isHeard() ? "live goes on" : STATES[state] + why;
  const pill = find("link");
  pill.dataset.state = isEnded ? "ended" : state;
  const told = isEnded ? "session ended" : text;
  if (pill.textContent === told) return;
  pill.textContent = told;
  if (state !== "connecting") say(told);
}

function onState(state, detail) {
  if (state === linked.state && detail === linked.detail) return;
  linked = { state, detail };
  showLink();
  draw();
  const door = find("door");
  if (state === "token") {
    if (detail) find("door-why").textContent = detail;
    if (!door.open) door.showModal();
  } else if (state === "live" && door.open) door.close();
}

const link = new Link(`${scheme}//${location.host}/${location.search}`, take, onState);

find("door").addEventListener("cancel", (event) => event.preventDefault());
find("door").addEventListener("submit", () => {
  link.give(find("token").value);
  find("token").value = "";
});

// ---- past sessions -------------------------------------------------------------------------

/** Show a session from an array of its messages; `Back to live` leaves it. */
export function openSession(messages) {
  const past = new Store();
  for (const message of messages) past.take(message);
  setPaused(false);
  show(past);
}

/** Fetch from the agent; `missing` is said if it has nothing there. */
async function fetchJson(path, missing) {
  const gone = () => {
    throw new Error("The agent does not answer.");
  };
  const answer = await fetch(path, { headers: link.authorization }).catch(gone);
  if (!answer.ok) throw new Error(answer.status === 404 ? missing : `${answer.status} ${answer.statusText}`);
  return answer.json();
}

async function fetchSession(id) {
  const messages = [];
  let after = null;
  for (let page = 0; page < PAGES; page++) {
    const query = after === null ? "" : `?after=${after}`;
    const answer = await fetchJson(`/sessions/${encodeURIComponent(id)}${query}`, "It is not kept any more.");
    messages.push(...(answer.messages ?? answer));
    after = answer.next ?? null;
    if (after === null) break;
  }
  return messages;
}

async function openPast(id) {
  try {
    openSession(await fetchSession(id));
  } catch (error) {
    find("banner").hidden = false;
    find("banner").textContent = `Session ${id} cannot be opened: ${error.message}`;
  }
}

function listed(past) {
  const button = document.createElement("button");
  const mean = past.mean_sentiment == null ? "no score" : `mean ${signed(past.mean_sentiment)}`;
  const isRunning = past.id === live.session && past.reason === null && isHeard();
  const end = isRunning ? ", still running" : past.reason === null ? ", no end" : "";
  button.textContent = `${past.id}: ${new Date(past.started).toLocaleString()}, ${clock(past.seconds)}, ${mean}${end}`;
  button.addEventListener("click", () => openPast(past.id));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

find("past").addEventListener("click", async () => {
  find("shelf").showModal();
  find("shelf-why").textContent = "looking …";
  find("sessions").replaceChildren();
  try {
    const answer = await fetchJson("/sessions", "No history is kept here: start the agent with --history.");
    const sessions = answer.sessions ?? answer;
    find("shelf-why").textContent = sessions.length ? "" : "None yet.";
    find("sessions").replaceChildren(...sessions.map(listed));
  } catch (error) {
    find("shelf-why").textContent = error.message;
  }
});

// ---- controls ------------------------------------------------------------------------------

find("pause").addEventListener("click", () => setPaused(!isPaused));
find("live").addEventListener("click", goLive);
find("scrub").addEventListener("input", ({ target }) => {
  look(shown.points[target.value] ?? null);
  if (moment) timeline.show(span, Math.max(moment.at + span / 2, span));
});
find("spans").addEventListener("change", ({ target }) => {
  span = Number(target.value);
  timeline.show(span, moment ? moment.at + span / 2 : null);
});

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  find("theme").textContent = `Theme: ${name}`;
  localStorage.setItem("tamulag-theme", name);
  timeline.paint();
}

find("theme").addEventListener("click", () => {
  const now = THEMES.indexOf(document.documentElement.dataset.theme);
  setTheme(THEMES[(now + 1) % THEMES.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.paint());

const wanted = localStorage.getItem("tamulag-theme");
setTheme(THEMES.includes(wanted) ? wanted : "auto");
show(live);
link.open();
