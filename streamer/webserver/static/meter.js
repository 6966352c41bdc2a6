// <tamulag-meter src="ws://..."> shows the live score on any page. Knows messages and how to draw
// them; knows nothing of the page around it.
//
//   src      the WebSocket, ws:// or wss://
//   label    its accessible name, "Sentiment" if there is none
//   .token   a property, never an attribute: markup is easily copied
//
// Each message is also dispatched as a `tamulag-message` event, with the object in `event.detail`.

const LIMIT = 3; // sentiment is in [-3, 3]
const MODALITIES = { text: "words", audio: "voice", vision: "face" };
const FIRST_PAUSE = 0.5, LONGEST_PAUSE = 8; // seconds between two attempts to connect
const SILENCE = 15; // seconds: scores or heartbeats come more often than that
const REFUSED = 1008; // close code: no valid token, or too many frames

const STYLE = `
:host {
  --ink: light-dark(#1c2430, #e9edf3); --soft: light-dark(#5b6675, #9aa7b8);
  --ground: light-dark(#ffffff, #161b22); --track: light-dark(#e6eaf0, #2a323d);
  --good: light-dark(#0b7a5a, #4fd1a5); --bad: light-dark(#b3391f, #ff9479);
  --even: light-dark(#5b6675, #aeb8c6);
  color-scheme: light dark; display: inline-block; box-sizing: border-box; width: 20rem;
  max-width: 100%; padding: 1rem; border-radius: .75rem; color: var(--ink);
  background: var(--ground); border: 1px solid var(--track); font: 1rem/1.4 system-ui, sans-serif;
}
:host([hidden]) { display: none }
.score { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem }
.value { font-size: 2rem; font-weight: 650; font-variant-numeric: tabular-nums; letter-spacing: -.02em }
.positive { color: var(--good) } .negative { color: var(--bad) } .neutral { color: var(--even) }
.track { position: relative; height: .625rem; border-radius: 1rem; background: var(--track); margin: .25rem 0 .75rem }
.track::after { content: ""; position: absolute; left: 50%; top: -.125rem; bottom: -.125rem; width: 1px; background: var(--soft) }
.interval, .mark { position: absolute; top: 0; bottom: 0; border-radius: 1rem }
.interval { background: currentColor; opacity: .3 }
.mark { top: -.25rem; bottom: -.25rem; width: .25rem; margin-left: -.125rem; background: currentColor }
.interval, .mark { transition: left .3s, width .3s }
dl { display: grid; grid-template-columns: auto 1fr; gap: .125rem .75rem; margin: 0; font-size: .875rem }
dt { color: var(--soft) } dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums }
.state { margin: .75rem 0 0; font-size: .875rem; color: var(--soft); overflow-wrap: anywhere }
.state:empty { margin: 0 }
@media (prefers-reduced-motion: reduce) { .interval, .mark { transition: none } }
@media (forced-colors: active) { .interval, .mark { forced-color-adjust: none; background: CanvasText } }
`;

const percent = (value) => `${(100 * (value + LIMIT)) / (2 * LIMIT)}%`;

function signed(value) {
  const rounded = value.toFixed(1);
  return (Number(rounded) < 0 ? "\u2212" : "+") + rounded.replace("-", ""); // no negative zero
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

class TamulagMeter extends HTMLElement {
  static observedAttributes = ["src", "label"];

  #token;
  #isOn = false;
  #socket = null;
  #timer = 0;
  #watch = 0;
  #pause = FIRST_PAUSE;
  #value = element("span", "value");
  #word = element("span", "word");
  #interval = element("span", "interval");
  #mark = element("span", "mark");
  #track = element("div", "track", this.#interval, this.#mark);
  #rows = {};
  #state = element("p", "state");

  constructor() {
    super();
    const sheet = new CSSStyleSheet(); // allowed by a page that forbids inline styles
    sheet.replaceSync(STYLE);
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const list = element("dl");
    for (const [name, word] of Object.entries(MODALITIES)) {
      this.#rows[name] = element("dd");
      list.append(element("dt", "", word), this.#rows[name]);
    }
    this.#track.role = "meter";
    this.#track.ariaValueMin = -LIMIT;
    this.#track.ariaValueMax = LIMIT;
    this.#state.role = "status";
    root.append(element("div", "score", this.#value, this.#word), this.#track, list, this.#state);
    this.#show(null);
  }

  get token() {
    return this.#token;
  }

  set token(value) {
    this.#token = value;
    if (this.#isOn) this.#restart();
  }

  connectedCallback() {
    if (Object.hasOwn(this, "token")) {
      // Set before this script was loaded: the plain property would hide the accessor of the class.
      const early = this.token;
      delete this.token;
      this.#token = early;
    }
    this.#isOn = true;
    this.#track.ariaLabel = this.getAttribute("label") ?? "Sentiment";
    this.#restart();
  }

  disconnectedCallback() {
    this.#isOn = false;
    this.#leave();
  }

  attributeChangedCallback(name, old, value) {
    if (!this.#isOn || old === value) return; // initial attributes are set before connectedCallback
    if (name === "src") this.#restart();
    else this.#track.ariaLabel = value ?? "Sentiment";
  }

  #restart() {
    this.#leave();
    this.#pause = FIRST_PAUSE;
    this.#connect();
  }

  #leave() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #connect() {
    const src = this.getAttribute("src");
    if (!src) return this.#showStatus("no address: give src=\"ws://...\"");
    let socket;
    try {
      socket = new WebSocket(src);
    } catch (error) {
      return this.#showStatus(`cannot connect to ${src}: ${error.message}`);
    }
    this.#socket = socket;
    this.#showStatus("connecting\u2026");
    let isReceiving = false;
    socket.onopen = () => {
      if (this.#token) socket.send(JSON.stringify({ token: this.#token }));
      this.#expect(socket);
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      isReceiving = true;
      this.#pause = FIRST_PAUSE;
      this.#expect(socket);
      this.#receive(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#lost(src, code, reason, isReceiving);
    };
  }

  // A dead link is silent, and the browser does not report it.
  #expect(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      socket.close();
      this.#lost(this.getAttribute("src"), 0, "nothing was heard", true);
    }, 1000 * SILENCE);
  }

  async #lost(src, code, reason, isReceiving) {
    clearTimeout(this.#watch);
    this.#socket = null;
    this.#show(null);
    if (code === REFUSED) {
      // No further attempt: ten wrong tokens within a minute block this address.
      return this.#showStatus(`${src} refused: ${reason}. Set the element's token property.`);
    }
    this.#again();
    if (isReceiving) return this.#showStatus(`${reason || "the connection is lost"}; connecting again`);
    this.#showStatus(`cannot connect to ${src}`);
    const is_there = await answers(src);
    if (!this.#isOn || this.#socket !== null || this.getAttribute("src") !== src) return;
    // A browser hides why a WebSocket failed; whether its server answers over HTTP narrows it.
    if (is_there) {
      this.#showStatus(`${src} refused this page: its origin ${location.origin} is not in websocket.origins`);
    } else {
      this.#showStatus(`no answer from ${src}: is tamulag-stream running there?`);
    }
  }

  #again() {
    clearTimeout(this.#timer);
    const pause = this.#pause * (0.5 + Math.random() / 2); // jitter, so that pages do not reconnect together
    this.#pause = Math.min(LONGEST_PAUSE, 2 * this.#pause);
    this.#timer = setTimeout(() => this.#connect(), 1000 * pause);
  }

  #receive(message) {
    this.dispatchEvent(new CustomEvent("tamulag-message", { detail: message }));
    if (message.type === "hello") this.#showStatus("");
    else if (message.type === "session_end") this.#showStatus("the session has ended");
    else if (message.type === "status") this.#showStatus(statusText(message));
    else if (message.type === "sentiment") this.#show(message);
  }

  #show(score) {
    const value = score?.sentiment ?? null;
    const word = value === null ? "" : score.label;
    this.#value.textContent = value === null ? "\u2013" : signed(value);
    this.#word.textContent = word;
    for (const part of [this.#value, this.#word, this.#track]) part.classList.remove("positive", "neutral", "negative");
    if (word) for (const part of [this.#value, this.#word, this.#track]) part.classList.add(word);
    this.#track.ariaValueNow = value ?? 0;
    this.#track.ariaValueText = value === null ? "no score" : `${signed(value)}, ${word}`;
    this.#mark.hidden = value === null;
    this.#mark.style.left = percent(value ?? 0);
    const interval = score?.interval ?? null;
    this.#interval.hidden = interval === null;
    if (interval) {
      this.#interval.style.left = percent(interval[0]);
      this.#interval.style.width = `${(100 * (interval[1] - interval[0])) / (2 * LIMIT)}%`;
    }
    for (const [name, row] of Object.entries(this.#rows)) row.textContent = part(score?.modalities[name]);
  }

  #showStatus(text) {
    if (this.#state.textContent !== text) this.#state.textContent = text;
  }
}

function part(modality) {
  if (!modality) return "";
  const { sentiment, status, reason } = modality;
  if (sentiment !== null) return status === "ok" ? signed(sentiment) : `${signed(sentiment)} ${status}`;
  return `${status} ${reason ? `(${reason.replaceAll("_", " ")})` : ""}`.trim();
}

function statusText({ state, lost, notice }) {
  const losses = Object.entries(lost).map(([name, reason]) => `${name}: ${reason.replaceAll("_", " ")}`);
  return [state === "online" ? "" : state, ...losses, notice].filter(Boolean).join(" \u00b7 ");
}

// Whether the server of a WebSocket serves this file, which it does for every page.
async function answers(src) {
  const url = new URL(src.replace(/^ws/, "http"));
  url.pathname = "/meter.js";
  try {
    return (await fetch(url, { method: "GET", signal: AbortSignal.timeout(3000) })).ok;
  } catch {
    return false; // no server, no certificate, or the browser forbids it
  }
}

customElements.define("tamulag-meter", TamulagMeter);
