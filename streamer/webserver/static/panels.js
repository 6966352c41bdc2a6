// The panels beside the timeline: one message in numbers, words and bars. Knows the elements of
// index.html; knows no socket and no chart.

import { clock, condition, happening, MODALITIES, plain, seconds, sentence, signed } from "./words.js";

const find = (name) => document.getElementById(name);
const put = (name, text) => {
  const element = find(name);
  if (element.textContent !== text) element.textContent = text;
};
const percent = (score) => `${((score + 3) / 6) * 100}%`;
const LISTED = 60;
/** Seconds by which a word may move between two hypotheses. */
const MOVED = 0.5;

/** An element with a class, text and children. */
function make(tag, kind = "", text = "", ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

const rows = Object.fromEntries(
  MODALITIES.map((name) => {
    const scale = make("span", "scale small", "", make("span", "needle"));
    scale.ariaHidden = "true";
    const share = make("span", "share");
    share.ariaHidden = "true";
    const row = make("li", name, "", make("b", "name", name), scale, make("output", "own"),
      share, make("span", "percent"), make("span", "state"));
    find("parts").append(row);
    return [name, row];
  }),
);

/** Show one score, or placeholders before the first. */
export function showScore(message) {
  const score = message?.sentiment ?? null;
  put("score", signed(score));
  put("trend", signed(message?.trend));
  put("label", message ? (message.label ?? "no score") : "waiting for the first score");
  const scale = find("scale");
  scale.ariaLabel = sentence(message);
  scale.dataset.label = message?.label ?? "none";
  point(scale, score, message?.interval);
  put("interval", message?.interval ? message.interval.map((end) => signed(end)).join(" to ") : "–");
  put("conflict", message?.conflict == null ? "–" : message.conflict.toFixed(2));
  const span = message?.window;
  put("window", span ? `${clock(span.start)} to ${clock(span.end)}${span.warmup ? ", warming up" : ""}` : "–");
  for (const name of MODALITIES) showPart(rows[name], message?.modalities[name]);
}

function showPart(row, part) {
  const set = (kind, text) => {
    const element = row.querySelector(kind);
    if (element.textContent !== text) element.textContent = text;
  };
  row.dataset.status = part?.status ?? "off";
  set(".own", signed(part?.sentiment));
  set(".percent", part ? `${Math.round(part.weight * 100)} %` : "–");
  const age = part?.age > 0.5 ? `, ${part.age.toFixed(1)} s old` : "";
  set(".state", part ? condition(part) + age : "–");
  row.querySelector(".share").style.setProperty("--share", part?.weight ?? 0);
  point(row.querySelector(".scale"), part?.sentiment);
}

function point(scale, score, interval) {
  scale.classList.toggle("empty", score == null);
  if (score != null) scale.style.setProperty("--at", percent(score));
  const [lo, hi] = interval ?? [score ?? 0, score ?? 0];
  scale.style.setProperty("--lo", percent(lo));
  scale.style.setProperty("--hi", percent(hi));
}

/** Show the words before a moment, each as dark as its attention weight. */
export function showWords({ words, tail }, attended) {
  const most = Math.max(0, ...attended.map(([, , weight]) => weight));
  const weights = new Map();
  for (const [text, at, weight] of attended) weights.set(closest(words, text, at), weight);
  const spans = words.map((word) => {
    const weight = weights.get(word) ?? 0;
    const span = make("span", weight ? "heavy" : "", word.text);
    if (weight) span.style.setProperty("--weight", weight / most);
    return span;
  });
  if (tail) spans.push(make("span", "tail", tail));
  const empty = spans.length ? [] : [make("span", "quiet", "Nothing was said in these 20 s.")];
  find("words").replaceChildren(...[...spans, ...empty].flatMap((span) => [span, " "]));
  const named = attended.map(([text, , weight]) => `${text}\u00a0${Math.round(weight * 100)}\u00a0%`);
  put("heaviest", named.length ? `Weighed most: ${named.join(", ")}` : "");
}

/** A word without its case and punctuation, which change when its sentence is complete. */
const bare = (text) => text.toLowerCase().replace(/[^\p{L}\p{M}\p{N}]/gu, "") || text;

/** The attended word; the recogniser may have moved or respelled it slightly since. */
function closest(words, text, at) {
  const away = (word) => Math.abs(word.start - at);
  const same = words.filter((word) => bare(word.text) === bare(text) && away(word) < MOVED);
  return same.sort((a, b) => away(a) - away(b))[0];
}

/** List the newest events, newest first. */
export function showEvents(events) {
  const shown = events.slice(-LISTED).reverse();
  const items = shown.map((event) => {
    const item = make("li", "", "", make("time", "", clock(event.at)), " ", make("span", "", happening(event)));
    item.dataset.event = event.event;
    return item;
  });
  find("events").replaceChildren(...items);
  put("count", events.length > LISTED ? `newest ${LISTED} of ${events.length}` : `${events.length || "none"}`);
}

/** Show the status now, or at a moment: load shedding, latency, losses. */
export function showHealth(store, isHeard, moment) {
  const message = (moment ?? store.newest)?.message;
  const status = store.statusAt(moment?.message);
  const lost = Object.entries(status?.lost ?? {}).map(([what, why]) => `${what}: ${plain(why)}`);
  const pill = find("state");
  const newest = store.end ? "ended" : isHeard ? status?.state : "unknown";
  const state = moment ? status?.state : newest;
  pill.dataset.state = state ?? "connecting";
  put("state", state ?? "–");
  const facts = {
    Missing: lost.join(", ") || "nothing",
    "Given up": status?.pressure.map(plain).join(", ") || "nothing",
    Latency: seconds(message?.latency.total),
    "of it waiting": seconds(message?.latency.align),
    "slowest input": seconds(message?.latency.features),
    Model: message ? `${(message.latency.model * 1000).toFixed(1)} ms` : "–",
    "Dropped since start": drops(message?.dropped),
    "Missed by this page": `${store.missed} messages`,
  };
  const list = find("health");
  if (!list.children.length) {
    list.append(...Object.keys(facts).map((name) => make("div", "", "", make("dt", "", name), make("dd"))));
  }
  Object.values(facts).forEach((text, i) => {
    const element = list.children[i].lastChild;
    if (element.textContent !== text) element.textContent = text;
  });
  put("notice", status?.notice ?? "");
}

const TICK = 0.02; // seconds of sound in what `dropped` counts
/** The losses of each input as text. */
const LOSSES = {
  text: (count) => `${count} ${count === 1 ? "phrase" : "phrases"}`,
  audio: (count) => `${(count * TICK).toFixed(2)} s of sound`,
  vision: (count) => `${count} ${count === 1 ? "picture" : "pictures"}`,
  asr: (count) => `${(count * TICK).toFixed(2)} s never recognised`,
};

function drops(dropped) {
  const some = Object.entries(dropped ?? {}).filter(([, count]) => count);
  return some.map(([name, count]) => LOSSES[name]?.(count) ?? `${name} ${count}`).join(", ") || "nothing";
}

/** Show how much of the session is stored in the page. */
export function showRetained({ points, gone, stride, seen, limits }) {
  const from = points.length ? clock(points[0].at) : "0:00";
  const parts = [`${points.length} of at most ${limits.scores} scores kept in this page.`];
  if (stride > 1) parts.push(`That is one of ${stride} of its ${seen}, from the first to the last.`);
  if (gone.scores) parts.push(`${gone.scores} older ones were dropped; the timeline begins at ${from}.`);
  if (gone.events) parts.push(`The oldest ${gone.events} events were dropped.`);
  if (gone.phrases) parts.push(`The oldest ${gone.phrases} utterances were dropped.`);
  put("retained", parts.join(" "));
}
