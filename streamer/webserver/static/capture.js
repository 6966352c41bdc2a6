// The capture page: asks for camera and microphone, sends what they give to /ingest, and stops on request.
// The page's clock is that of performance.now(), in seconds, for sound and pictures alike.

const PICTURES = 10; // a second
const WIDTH = 640; // pixels
const QUALITY = 0.7;
const RATE = 16000; // Hz, of the sound that is sent
const QUIET = 1500; // ms without anything sent after which the sign says so
const PATIENCE = 5000; // ms for the first sound or picture, after which it says so too
const BACKLOG = 500_000; // bytes that may wait to be sent; above it the newest is dropped

const at = (id) => document.getElementById(id);
const now = () => performance.now() / 1000;

let run = null; // the running capture: its stop() releases everything

function frame(header, payload) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(4 + text.length + payload.byteLength);
  new DataView(bytes.buffer).setUint32(0, text.length);
  bytes.set(text, 4);
  bytes.set(new Uint8Array(payload), 4 + text.length);
  return bytes;
}

function show(state, text) {
  const isOn = state === "ON";
  at("sign").className = isOn ? "on" : "off";
  at("sign").firstElementChild.textContent = state;
  at("sign").lastElementChild.textContent = text;
  document.title = isOn ? "\u{1F534} ON: camera and microphone" : "Camera and microphone off";
  at("form").hidden = state !== "OFF";
  at("stop").hidden = state === "OFF";
}

// Resolves with the server's limits once it is ready; rejects with its reason otherwise.
function connect(hello, token) {
  const address = new URL("ingest", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const ready = new Promise((resolve, reject) => {
    socket.onopen = () => {
      if (token) socket.send(JSON.stringify({ token }));
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = ({ data }) => resolve(JSON.parse(data));
    socket.onclose = ({ code, reason }) => reject(new Error(reason || `the connection was closed (${code})`));
  });
  return { socket, ready };
}

function askFor() {
  const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  return navigator.mediaDevices.getUserMedia({
    audio: at("microphone").checked && sound,
    video: at("camera").checked && { width: { ideal: WIDTH }, facingMode: "user" },
  });
}

class Run {
  #undo = [];
  #sent = { sound: 0, pictures: 0, left: 0 };
  #newest = {}; // page time in ms at which sound and pictures last went out
  #since = Infinity; // page time in ms from which both should go out
  #isOver = false;

  async start() {
    const stream = await askFor();
    this.#atEnd(() => stream.getTracks().forEach((track) => track.stop()));
    for (const track of stream.getTracks()) track.onended = () => this.stop("The browser has taken the device away.");
    const sounds = stream.getAudioTracks().length > 0 && (await this.#sound(stream));
    const hello = { type: "hello", v: 1 };
    if (sounds) hello.audio = { encoding: "pcm_s16le", rate: RATE, channels: 1 };
    if (stream.getVideoTracks().length > 0) hello.vision = { encoding: "jpeg" };
    const { socket, ready } = connect(hello, at("token").value);
    this.#atEnd(() => socket.close(1000, "stopped"));
    await ready;
    socket.onclose = ({ code, reason }) => this.stop(`The server has ended it: ${reason || code}.`);
    if (this.#isOver) return;
    if (sounds) this.#sendSound(socket, sounds);
    if (hello.vision) await this.#sendPictures(socket, stream);
    const sound = sounds ? { context: sounds.context, track: stream.getAudioTracks()[0] } : null;
    const wanted = { sound, picture: hello.vision };
    const timer = setInterval(() => this.#count(wanted), 500);
    this.#atEnd(() => clearInterval(timer));
    this.#since = performance.now();
    show("\u2026", "Waiting for the first sound and picture.");
  }

  // People may press Stop while the browser still asks for the devices: what it gives then is let go at once.
  #atEnd(release) {
    if (this.#isOver) {
      release();
      throw new Error("stopped");
    }
    this.#undo.push(release);
  }

  stop(why) {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const undo of this.#undo.reverse()) undo();
    at("view").srcObject = null;
    at("view").hidden = true;
    at("problem").textContent = why ?? "";
    show("OFF", "Nothing is captured.");
    at("start").focus();
    run = null;
  }

  async #sound(stream) {
    const context = new AudioContext(); // of the device's rate; the worklet resamples
    this.#atEnd(() => context.close());
    await context.audioWorklet.addModule("capture-worklet.js");
    const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    context.createMediaStreamSource(stream).connect(recorder);
    // Not awaited: where the browser wants another tap first, it answers only then.
    context.resume().catch(() => {});
    const wake = () => context.state === "running" || context.resume().catch(() => {});
    addEventListener("pointerdown", wake);
    this.#atEnd(() => removeEventListener("pointerdown", wake));
    return { context, recorder };
  }

  #sendSound(socket, { context, recorder }) {
    let shift = Infinity; // page time less audio time: messages come late by chance, never early
    let skipped = 0; // samples that were never recorded, while the system had stopped the sound
    let next = null; // page time at which the next block begins
    context.onstatechange = () => {
      if (context.state === "running") shift = Infinity; // its time stood still meanwhile
    };
    recorder.port.onmessage = ({ data: { block, position, end } }) => {
      const length = block.length / RATE;
      shift = Math.min(shift, now() - end);
      const timestamp = Math.max(0, end + shift - length);
      if (next !== null && timestamp - next > 0.5) skipped += Math.round((timestamp - next) * RATE);
      next = timestamp + length;
      const header = { kind: "audio", timestamp, position: position + skipped };
      if (!this.#send(socket, header, block.buffer)) return;
      this.#sent.sound += length;
      this.#newest.sound = performance.now();
    };
  }

  async #sendPictures(socket, stream) {
    const view = at("view");
    view.srcObject = new MediaStream(stream.getVideoTracks());
    view.hidden = false;
    await view.play();
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d", { alpha: false });
    let isBusy = false;
    const timer = setInterval(() => {
      if (isBusy || !view.videoWidth) return;
      isBusy = true;
      const width = Math.min(WIDTH, view.videoWidth);
      const height = Math.round((view.videoHeight * width) / view.videoWidth);
      // A tablet may be turned while it sends. Setting a size clears the canvas, so only where it changes.
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const timestamp = now();
      pen.drawImage(view, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(async (blob) => {
        const payload = await blob?.arrayBuffer();
        if (payload && this.#send(socket, { kind: "image", timestamp }, payload)) {
          this.#sent.pictures += 1;
          this.#newest.picture = performance.now();
        }
        isBusy = false;
      }, "image/jpeg", QUALITY);
    }, 1000 / PICTURES);
    this.#atEnd(() => clearInterval(timer));
  }

  #send(socket, header, payload) {
    if (this.#isOver || socket.readyState !== WebSocket.OPEN) return false;
    if (socket.bufferedAmount > BACKLOG) {
      this.#sent.left += 1;
      return false;
    }
    socket.send(frame(header, payload));
    return true;
  }

  // The sign follows what went out, not what was meant to.
  #showFlow({ sound, picture }) {
    const flows = (kind) => performance.now() - (this.#newest[kind] ?? -Infinity) < QUIET;
    const heard = sound && flows("sound");
    const seen = picture && flows("picture");
    const isLate = performance.now() - this.#since > PATIENCE;
    const began = isLate || this.#newest.sound !== undefined || this.#newest.picture !== undefined;
    const gone = [];
    if (sound && !heard) gone.push(this.#whyQuiet(sound));
    else if (sound?.track.muted) gone.push("The system has muted the microphone.");
    if (picture && !seen) gone.push("No picture is sent: is the camera covered, or this page hidden?");
    const done = [seen && "seen", heard && "heard"].filter(Boolean).join(" and ");
    if (done) show("ON", [`You are being ${done}.`, ...gone].join(" "));
    else if (began) show("PAUSED", ["Nothing is sent.", ...gone].join(" "));
  }

  #whyQuiet({ context }) {
    if (context.state === "running") return "The microphone gives no sound.";
    context.resume().catch(() => {}); // allowed without a tap only in some browsers; `begin` has another
    if (this.#newest.sound === undefined) {
      return "The browser has not started the sound: tap this page. Firefox needs a loudspeaker or headphones for it too.";
    }
    return "The system has stopped the microphone (a call?): tap this page to go on.";
  }

  #count(wanted) {
    this.#showFlow(wanted);
    const { sound, pictures, left } = this.#sent;
    const late = left ? ` ${left} left out, because the network is slow.` : "";
    at("figures").textContent = `Sent: ${sound.toFixed(0)} s of sound, ${pictures} pictures.${late}`;
  }
}

// A text with a remedy: the browser's own is for developers.
function explained(error) {
  if (error.name === "NotAllowedError") return "Camera or microphone are not allowed for this page: see the address bar.";
  if (error.name === "NotFoundError") return "There is no such camera or microphone.";
  if (error.name === "NotReadableError") return "Another program uses the camera or the microphone.";
  return error.message;
}

async function begin(event) {
  event.preventDefault();
  at("problem").textContent = "";
  if (!at("camera").checked && !at("microphone").checked) {
    at("problem").textContent = "Choose the camera, the microphone or both.";
    return;
  }
  const begun = new Run();
  run = begun;
  show("\u2026", "Waiting for camera, microphone and server.");
  try {
    await begun.start();
  } catch (error) {
    begun.stop(explained(error)); // not `run`: that may be a later one
    if (/token/.test(error.message)) at("lock").hidden = false;
  }
}

at("place").textContent = location.host;
at("form").addEventListener("submit", begin);
at("stop").addEventListener("click", () => run?.stop());
addEventListener("pagehide", () => run?.stop());
if (!navigator.mediaDevices) {
  at("start").disabled = true;
  at("problem").textContent = "Browsers allow camera and microphone on https:// and localhost only.";
}
