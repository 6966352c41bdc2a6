// The dashboard: puts messages into the store, draws the store, handles the controls. All else is in
// the modules that it combines.

import { Timeline } from "./chart.js";
import { Link } from "./link.js";
import { showEvents, showHealth, showRetained, showScore, showWords } from "./panels.js";
import { fetchList, fetchPages } from "./past.js";
import { PAST, Store } from "./store.js";
import { clock, plain, sentence, short, signed } from "./words.js";

const find = (name) => document.getElementById(name);
/** Above this number of new points the chart is redrawn instead of extended. */
const MANY = 40;
/** Least seconds between two announcements of the label to a screen reader. */
const LABEL_INTERVAL = 10;
/** Seconds of words that are shown, and by how much they may be ahead of the newest score. */
const WORDS = 20;
const AHEAD = 5;
/** Prefix of the names of remote sources; only with such a source there is a capture page. */
const SENDER = "sender's ";

const live = new Store();
let shown = live;
let opening = null; // the past session that is being fetched
let moment = null; // the selected point; null: the newest
let isPaused = false;
let isDue = false;
let fresh = 0; // live points that are not in the timeline yet
let span = 300;

let linked = { state: "connecting", detail: "" };

const timeline = new Timeline(find("chart"), (time) => select(nearest(time)));

// ---- what is shown ------------------------------------------------------------------------

const isConnected = () => linked.state === "live" && !live.end;

function nearest(time) {
  let low = 0;
  for (let high = shown.points.length - 1; low < high; ) {
    const middle = (low + high) >> 1;
    if (shown.points[middle].at < time) low = middle + 1;
    else high = middle;
  }
  return shown.points[low] ?? null;
}

/** Draw at most once per frame. */
function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (shown === live && !isPaused) catchUp();
    const point = moment ?? shown.newest;
    if (!isPaused || moment) showPoint(point);
    showHealth(shown, shown !== live || isConnected(), moment);
    showRetained(shown);
    drawControls();
  });
}

/** Add the points since the last frame; after a long pause (a hidden tab) a redraw is quicker. */
function catchUp() {
  if (fresh > MANY) redraw();
  else for (const point of fresh ? live.points.slice(-fresh) : []) timeline.add(point);
  fresh = 0;
}

function showPoint(point) {
  showScore(point?.message);
  // Words arrive between two scores as well; those of a past moment end with it.
  const from = point?.at ?? 0;
  const { words, tail } = shown.wordsBefore(moment ? from : from + AHEAD, WORDS);
  showWords({ words, tail: moment ? "" : tail }, point?.message.attention.text ?? []);
}

function drawControls() {
  find("moment").textContent = place();
  document.querySelector("main").classList.toggle("still", shown === live && !moment && !isConnected());
  const scrub = find("scrub");
  scrub.max = Math.max(0, shown.points.length - 1);
  const index = moment ? shown.points.indexOf(moment) : shown.points.length - 1;
  scrub.value = index;
  const point = moment ?? shown.newest;
  scrub.setAttribute("aria-valuetext", point ? `${clock(point.at)}: ${sentence(point.message)}` : "nothing yet");
  find("live").disabled = moment === null && shown === live && !isPaused && !opening;
}

/** Name the score that is shown: live only while messages arrive. */
function place() {
  if (moment) return `at ${clock(moment.at)}`;
  if (isPaused) return "paused";
  if (shown === live && isConnected()) return "live";
  return shown.newest ? `last, ${clock(shown.newest.at)}` : "no score yet";
}

function select(point) {
  moment = point;
  timeline.choose(point?.at ?? null);
  draw();
}

function goLive() {
  moment = null;
  opening = null;
  setPaused(false);
  show(live);
}

function show(store) {
  shown = store;
  fresh = 0;
  timeline.set(store.points, store.events, store.step);
  timeline.show(span);
  showEvents(store.events);
  showBanner("");
  showAbout();
  showLink();
  select(null);
}

/** Show a notice above the panels until the next one. */
function showBanner(text) {
  find("banner").hidden = !text;
  find("banner").textContent = text;
}

function setPaused(value) {
  isPaused = value;
  find("pause").setAttribute("aria-pressed", String(value));
  find("pause").textContent = value ? "Resume" : "Pause";
  if (!value && shown === live) show(live);
  draw();
}

// ---- messages -----------------------------------------------------------------------------

function receive(message) {
  const changed = live.add(message);
  if (changed === "event") announce(`${plain(message.event)} ${message.modality ?? ""}`.trim());
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
  if (changed === "point" && live.newest.message.label !== announced.label) announceLabel();
  draw();
}

function redraw() {
  if (moment && !live.points.includes(moment)) select(null);
  timeline.set(live.points, live.events, live.step);
  timeline.show(span, moment?.at ?? null);
}

/** Show the session's name and facts; the history has no hello among its messages. */
function showAbout() {
  const { session, hello } = shown;
  const name = `${shown === live ? "" : "past "}session ${session}`;
  const facts = hello ? [hello.sources.map(short).join(", "), hello.checkpoint] : [];
  find("about").textContent = session ? [name, ...facts].join(" · ") : "";
  find("capture").hidden = !live.hello?.sources.some((source) => source.startsWith(SENDER));
}

const announced = { at: -Infinity, label: null };

function announce(text) {
  find("announcement").textContent = text;
}

/** Announce a changed label to a screen reader, at most once in ten seconds. */
function announceLabel() {
  const now = performance.now() / 1000;
  if (now - announced.at < LABEL_INTERVAL) return;
  announced.at = now;
  announced.label = live.newest.message.label;
  announce(`Sentiment ${live.newest.message.label ?? "unknown"}, ${signed(live.newest.score, 1)}`);
}

// ---- the link and the token ----------------------------------------------------------------

const STATES = { connecting: "connecting", live: "live", waiting: "reconnecting", token: "token wanted" };
const scheme = location.protocol === "https:" ? "wss:" : "ws:";

/** Show the state of the link; the end of a session outranks the loss of its link. */
function showLink() {
  const { state, detail } = linked;
  const isEnded = live.end !== null && state !== "token";
  const why = detail && state !== "token" ? `: ${detail}` : "";
  const text = shown !== live && isConnected() ? "live goes on" : STATES[state] + why;
  const pill = find("link");
  pill.dataset.state = isEnded ? "ended" : state;
  const status = isEnded ? "session ended" : text;
  if (pill.textContent === status) return;
  pill.textContent = status;
  if (state !== "connecting") announce(status);
}

function onState(state, detail) {
  if (state === linked.state && detail === linked.detail) return;
  linked = { state, detail };
  showLink();
  draw();
  const dialog = find("token-dialog");
  if (state === "token") {
    if (detail) find("token-why").textContent = detail;
    if (!dialog.open) dialog.showModal();
  } else if (state === "live" && dialog.open) dialog.close();
}

const link = new Link(`${scheme}//${location.host}/${location.search}`, receive, onState);

find("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
find("token-dialog").addEventListener("submit", () => {
  link.give(find("token").value);
  find("token").value = "";
});

// ---- past sessions -------------------------------------------------------------------------

/** Show a session from an array of its messages, until `Back to live`. */
export function openSession(messages) {
  const past = new Store(PAST);
  for (const message of messages) past.add(message);
  showPast(past, past.newest?.at ?? 0);
}

/** Show a past session and which of its seconds are loaded. */
function showPast(past, seconds, isWhole = true) {
  opening = null;
  setPaused(false);
  show(past);
  const { points, stride } = past;
  const range = points.length ? `${clock(points[0].at)} to ${clock(past.newest.at)}` : "no score";
  const some = stride > 1 ? `, one score of ${stride}` : "";
  const rest = isWhole ? "" : " The rest is too long for this page: export it.";
  showBanner(`Past session ${past.session}: nothing here is live. ${range} of ${clock(seconds)}${some}.${rest}`);
}

async function openPast(id, seconds) {
  const past = new Store(PAST);
  past.clear(id);
  opening = past;
  let isWhole = false;
  try {
    for await (const { messages, isLast } of fetchPages(id, link.authorization)) {
      if (opening !== past) return;
      for (const message of messages) past.add(message);
      isWhole = isLast;
      showBanner(`Opening session ${id}: ${clock(past.newest?.at ?? 0)} of ${clock(seconds)} are here.`);
      draw();
    }
    showPast(past, seconds, isWhole);
  } catch (error) {
    if (opening !== past) return;
    opening = null;
    showBanner(`Session ${id} cannot be opened: ${error.message}`);
  }
}

function listed(past) {
  const button = document.createElement("button");
  const mean = past.mean_sentiment == null ? "no score" : `mean ${signed(past.mean_sentiment)}`;
  const isRunning = past.id === live.session && past.reason === null && isConnected();
  const end = isRunning ? ", still running" : past.reason === null ? ", no end" : "";
  button.textContent = `${past.id}: ${new Date(past.started).toLocaleString()}, ${clock(past.seconds)}, ${mean}${end}`;
  button.addEventListener("click", () => openPast(past.id, past.seconds));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

find("past").addEventListener("click", async () => {
  find("history-dialog").showModal();
  find("history-why").textContent = "looking …";
  find("sessions").replaceChildren();
  try {
    const sessions = await fetchList(link.authorization);
    find("history-why").textContent = sessions.length ? "" : "None yet.";
    find("sessions").replaceChildren(...sessions.map(listed));
  } catch (error) {
    find("history-why").textContent = error.message;
  }
});

// ---- controls ------------------------------------------------------------------------------

find("pause").addEventListener("click", () => setPaused(!isPaused));
find("live").addEventListener("click", goLive);
find("scrub").addEventListener("input", ({ target }) => {
  select(shown.points[target.value] ?? null);
  if (moment) timeline.show(span, moment.at);
});
find("spans").addEventListener("change", ({ target }) => {
  span = Number(target.value);
  timeline.show(span, moment?.at ?? null);
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
