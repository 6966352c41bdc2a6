// The connection: opens it, authenticates, reconnects. Knows no element and no message but the
// first.

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 8;
/** Seconds without any message after which the link counts as dead; heartbeats come every 5. */
const DEAD_AFTER = 15;
/** Seconds of silence from which the server is assumed to wait for the token. */
const TOKEN_AFTER = 1;
/** Reasons of close code 1008: another token is asked for. */
const WRONG = "no valid token";
const WITHOUT_RIGHT = "this token lacks the right";
const CODES = { 1001: "the stream has ended", 1008: WRONG, 1013: "too many subscribers" };

export class Link {
  #socket = null;
  #token = null;
  #wait = FIRST_WAIT;
  #received = 0;
  #prompt = null;

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
    this.#received = performance.now();
    socket.onopen = () => this.#onOpen(socket);
    socket.onmessage = (event) => this.#onMessage(socket, event.data);
    socket.onclose = (event) => this.#onClose(socket, event);
  }

  /** Authenticate with a token that the user has typed; it is stored in this object alone. */
  give(token) {
    this.#token = token;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#authenticate(this.#socket);
    else if (this.#socket?.readyState !== WebSocket.CONNECTING) this.open();
  }

  #onOpen(socket) {
    if (this.#token) this.#authenticate(socket);
    else this.#prompt = setTimeout(() => this.onState("token", ""), TOKEN_AFTER * 1000);
  }

  #authenticate(socket) {
    this.#cancelPrompt();
    this.onState("connecting", "");
    socket.send(JSON.stringify({ token: this.#token }));
  }

  #onMessage(socket, data) {
    if (socket !== this.#socket) return;
    this.#cancelPrompt();
    this.#received = performance.now();
    this.#wait = FIRST_WAIT;
    this.onState("live", "");
    this.onMessage(JSON.parse(data));
  }

  #onClose(socket, { code, reason }) {
    this.#cancelPrompt();
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (code === 1008 && (reason === WRONG || reason.startsWith(WITHOUT_RIGHT))) {
      const why = reason === WRONG ? "That token was not right." : `${reason}.`;
      this.onState("token", this.#token ? why : "");
      this.#token = null;
      return;
    }
    const seconds = this.#wait * (1 + Math.random() / 4);
    this.#wait = Math.min(LONGEST_WAIT, this.#wait * 2);
    this.onState("waiting", CODES[code] ?? "connection lost");
    setTimeout(() => this.#socket ?? this.open(), seconds * 1000);
  }

  #cancelPrompt() {
    clearTimeout(this.#prompt);
    this.#prompt = null;
  }

  #watch() {
    const isOpen = this.#socket?.readyState === WebSocket.OPEN && this.#prompt === null;
    if (!isOpen || performance.now() - this.#received < DEAD_AFTER * 1000) return;
    const dead = this.#socket;
    this.#onClose(dead, { code: 1006, reason: "" });
    dead.close();
  }
}
