// What the page remembers of one session, bounded. Knows messages; knows no element and no socket.

/** Scores kept: one hour at a hop of 0.5 s. */
export const LIMIT = 7200;
/** So many go at once when there are more: the chart is drawn anew only every few minutes. */
const SLICE = 300;
const EVENTS = 500;
const PHRASES = 2000;

export class Store {
  constructor() {
    this.clear(null);
  }

  clear(session) {
    this.session = session;
    this.points = [];
    this.events = [];
    this.phrases = new Map();
    this.forgotten = 0;
    this.missed = 0;
    this.hello = null;
    this.status = null;
    this.end = null;
  }

  /** Keep a message; returns what changed: "fresh", "point", "points", "event", or its type. */
  take(message) {
    const isFresh = message.session !== this.session;
    if (isFresh) this.clear(message.session);
    const keep = { sentiment: this.#score, event: this.#event, text: this.#phrase }[message.type];
    let changed = keep ? keep.call(this, message) : message.type;
    if (message.type === "hello") this.hello = message;
    if (message.type === "status") this.status = message;
    if (message.type === "missed") this.missed += message.missed;
    if (message.type === "session_end") this.end = message;
    return isFresh ? "fresh" : changed;
  }

  get newest() {
    return this.points.at(-1) ?? null;
  }

  /** Words of the seconds before a moment, oldest first, with the tail of the newest utterance. */
  wordsBefore(moment, span) {
    const words = [];
    let tail = "";
    for (const phrase of this.phrases.values()) {
      for (const word of phrase.words) {
        if (word.start > moment - span && word.start <= moment) words.push(word);
      }
      tail = phrase.final ? "" : phrase.tail;
    }
    return { words, tail };
  }

  #score(message) {
    const parts = message.modalities;
    const [lo, hi] = message.interval ?? [null, null];
    const at = message.window.end;
    if (this.newest && at <= this.newest.at) return "late";
    this.points.push({
      at, lo, hi,
      score: message.sentiment,
      text: parts.text.sentiment, audio: parts.audio.sentiment, vision: parts.vision.sentiment,
      conflict: message.conflict,
      message,
    });
    if (this.points.length <= LIMIT) return "point";
    this.points.splice(0, SLICE);
    this.forgotten += SLICE;
    this.#forgetBefore(this.points[0].at);
    return "points";
  }

  #event(message) {
    this.events.push(message);
    if (this.events.length > EVENTS) this.events.shift();
    return "event";
  }

  #phrase(message) {
    this.phrases.delete(message.utterance);
    this.phrases.set(message.utterance, message);
    if (this.phrases.size > PHRASES) this.phrases.delete(this.phrases.keys().next().value);
    return "text";
  }

  #forgetBefore(at) {
    this.events = this.events.filter((event) => event.at >= at);
    for (const [number, phrase] of this.phrases) {
      if (phrase.final && (phrase.words.at(-1)?.end ?? 0) < at) this.phrases.delete(number);
    }
  }
}
