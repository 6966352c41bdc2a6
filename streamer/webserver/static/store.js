// The messages of one session, bounded. Knows messages; knows no element and no socket.

/** Limits for a running session: one hour at a hop of 0.5 s; the oldest is dropped. */
export const LIVE = { scores: 7200, events: 500, phrases: 2000, statuses: 500 };
/** Limits for a past session: four hours; above it every second score is dropped, never the ends. */
export const PAST = { scores: 28_800, events: 2000, phrases: 8000, statuses: 2000, thins: true };
/** Scores dropped at once, so that the chart is redrawn only every few minutes. */
const SLICE = 300;

export class Store {
  constructor(limits = LIVE) {
    this.limits = limits;
    this.clear(null);
  }

  clear(session) {
    this.session = session;
    this.points = [];
    this.events = [];
    this.phrases = new Map();
    this.statuses = [];
    this.seen = 0; // scores
    this.stride = 1; // one of so many scores is stored
    this.gone = { scores: 0, events: 0, phrases: 0 }; // dropped to stay within the limits
    this.missed = 0;
    this.hello = null;
    this.end = null;
  }

  /** Store a message; returns what changed: "fresh", "point", "points", "event", or its type. */
  add(message) {
    const isFresh = message.session !== this.session;
    if (isFresh) this.clear(message.session);
    const store = {
      sentiment: this.#score, event: this.#event, text: this.#phrase, status: this.#status,
    }[message.type];
    const changed = store ? store.call(this, message) : message.type;
    if (message.type === "hello") this.hello = message;
    if (message.type === "missed") this.missed += message.missed;
    if (message.type === "session_end") this.end = message;
    return isFresh ? "fresh" : changed;
  }

  get newest() {
    return this.points.at(-1) ?? null;
  }

  /** The newest status, or the one before a score. */
  statusAt(message) {
    return this.statuses.findLast(({ seq }) => !message || seq <= message.seq) ?? null;
  }

  /** Seconds from one point to the next, gaps aside; computed where there is no hello. */
  get step() {
    if (this.hello) return this.hello.hop * this.stride;
    const steps = this.points.slice(1).map(({ at }, i) => at - this.points[i].at);
    return steps.sort((a, b) => a - b)[steps.length >> 1] ?? 0.5;
  }

  /** Words of the seconds before a moment, oldest first, with the tail of the newest utterance. */
  wordsBefore(moment, span) {
    const words = [];
    let tail = "";
    for (const phrase of this.phrases.values()) {
      const isNear = phrase.words.at(-1)?.start > moment - span;
      for (const word of isNear ? phrase.words : []) {
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
    if (this.newest && this.newest.number % this.stride) this.points.pop();
    this.points.push({
      at, lo, hi,
      number: this.seen++,
      score: message.sentiment,
      text: parts.text.sentiment, audio: parts.audio.sentiment, vision: parts.vision.sentiment,
      conflict: message.conflict,
      message,
    });
    if (this.points.length <= this.limits.scores) return "point";
    if (this.limits.thins) this.#thin();
    else this.#cut();
    return "points";
  }

  /** Drop every second score but the newest: the whole session stays in the chart. */
  #thin() {
    this.stride *= 2;
    const { newest, stride } = this;
    this.points = this.points.filter((point) => point.number % stride === 0 || point === newest);
  }

  #cut() {
    this.points.splice(0, SLICE);
    this.gone.scores += SLICE;
    this.#forgetBefore(this.points[0].at);
  }

  #event(message) {
    this.events.push(message);
    if (this.events.length > this.limits.events) {
      this.events.shift();
      this.gone.events += 1;
    }
    return "event";
  }

  #status(message) {
    this.statuses.push(message);
    if (this.statuses.length > this.limits.statuses) this.statuses.shift();
    return "status";
  }

  #phrase(message) {
    this.phrases.delete(message.utterance);
    this.phrases.set(message.utterance, message);
    if (this.phrases.size > this.limits.phrases) {
      this.phrases.delete(this.phrases.keys().next().value);
      this.gone.phrases += 1;
    }
    return "text";
  }

  #forgetBefore(at) {
    this.events = this.events.filter((event) => event.at >= at);
    for (const [number, phrase] of this.phrases) {
      if (phrase.final && (phrase.words.at(-1)?.end ?? 0) < at) this.phrases.delete(number);
    }
  }
}
