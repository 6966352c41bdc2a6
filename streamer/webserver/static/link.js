// The connection: opens it, shows the token, opens it again. Knows no element and no message but
// the first.

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 8;
/** Seconds without any message after which the link counts as dead; heartbeats come every 5. */
const PATIENCE = 15;
/** Seconds after which a server that says nothing is taken to wait for the token. */
const ASKS = 1;
const CODES = { 1001: "the stream has ended", 1008: "no valid token", 1013: "too many subscribers" };

export class Link {
  #socket = null;
  #token = null;
  #wait = FIRST_WAIT;
  #heard = 0;
  #asks = null;

  /**
   * @param {string} url of the WebSocket
   * @param {(message: object) => void} onMessage
   * @param {(state: string, detail: string) => void} onState connecting, live, token or waiting
   */
  constructor(url, onMessage, onState) {
    Object.assign(this, { url, onMessage, onState });
    setInterval(() => this.#watch(), 1000);
  }

  get authorization() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  open() {
    this.onState("connecting", "");
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#heard = performance.now();
    socket.onopen = () => this.#opened(socket);
    socket.onmessage = (event) => this.#got(socket, event.data);
    socket.onclose = (event) => this.#closed(socket, event);
  }

  /** Show a token that somebody has typed; it is kept in this object alone. */
  give(token) {
    this.#token = token;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#show(this.#socket);
    else if (this.#socket?.readyState !== WebSocket.CONNECTING) this.open();
  }

  #opened(socket) {
    if (this.#token) this.#show(socket);
    else this.#asks = setTimeout(() => this.onState("token", ""), ASKS * 1000);
  }

  #show(socket) {
    this.#askNoMore();
    this.onState("connecting", "");
    socket.send(JSON.stringify({ token: this.#token }));
  }

  #got(socket, data) {
    if (socket !== this.#socket) return;
    this.#askNoMore();
    this.#heard = performance.now();
    this.#wait = FIRST_WAIT;
    this.onState("live", "");
    this.onMessage(JSON.parse(data));
  }

  #closed(socket, { code, reason }) {
    this.#askNoMore();
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (code === 1008 && reason === "no valid token") {
      const shown = this.#token;
      this.#token = null;
      this.onState("token", shown ? "That token was not right." : "");
      return;
    }
    const seconds = this.#wait * (1 + Math.random() / 4);
    this.#wait = Math.min(LONGEST_WAIT, this.#wait * 2);
    this.onState("waiting", CODES[code] ?? "connection lost");
    setTimeout(() => this.#socket ?? this.open(), seconds * 1000);
  }

  #askNoMore() {
    clearTimeout(this.#asks);
    this.#asks = null;
  }

  #watch() {
    const isOpen = this.#socket?.readyState === WebSocket.OPEN && this.#asks === null;
    if (!isOpen || performance.now() - this.#heard < PATIENCE * 1000) return;
    const dead = this.#socket;
    this.#closed(dead, { code: 1006, reason: "" });
    dead.close();
  }
}
