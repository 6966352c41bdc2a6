// Collects the microphone's sound into blocks of 20 ms at 16 kHz and posts them as 16 bit samples, with the
// number of samples before each. The context has the device's own rate: not every browser connects
// a microphone to a context of another. Runs in the audio thread and knows nothing of the page.

const RATE = 16000;
const BLOCK = RATE / 50;
const STEP = sampleRate / RATE; // input samples for one of the output
const HALF = Math.ceil(16 * Math.max(1, STEP)); // input samples on each side of a place
const CUT = 0.95 * Math.min(1, 1 / STEP); // of half the input's rate
const PHASES = 64;

// Windowed sinc, at 64 places between two input samples.
const filters = Array.from({ length: PHASES + 1 }, (_, phase) => {
  const taps = Float32Array.from({ length: 2 * HALF }, (_, tap) => {
    const away = tap - HALF + 1 - phase / PHASES;
    const x = Math.PI * CUT * away;
    const sinc = away === 0 ? 1 : Math.sin(x) / x;
    return Math.abs(away) < HALF ? sinc * Math.cos((Math.PI * away) / (2 * HALF)) ** 2 : 0;
  });
  const sum = taps.reduce((a, b) => a + b);
  return taps.map((tap) => tap / sum);
});

class Recorder extends AudioWorkletProcessor {
  #held = new Float32Array(2 * HALF + 256); // input that is still needed
  #length = HALF - 1; // silence before the first sample
  #place = HALF - 1; // of the next output sample, in what is held
  #block = new Int16Array(BLOCK);
  #filled = 0;
  #position = 0;

  process([[channel]]) {
    if (!channel) return true;
    this.#held.set(channel, this.#length);
    this.#length += channel.length;
    for (; this.#place + HALF < this.#length; this.#place += STEP) this.#add(this.#value());
    const used = Math.floor(this.#place) - HALF + 1;
    this.#held.copyWithin(0, used, this.#length);
    this.#length -= used;
    this.#place -= used;
    return true;
  }

  #value() {
    const first = Math.floor(this.#place);
    const taps = filters[Math.round((this.#place - first) * PHASES)];
    let sum = 0;
    for (let tap = 0; tap < taps.length; tap++) sum += taps[tap] * this.#held[first - HALF + 1 + tap];
    return sum;
  }

  #add(value) {
    this.#block[this.#filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
    if (this.#filled === BLOCK) this.#post();
  }

  #post() {
    // currentTime is that of the first sample of the 128 at hand; the next place lies before their end.
    const end = currentTime + (128 - (this.#length - this.#place)) / sampleRate;
    const block = this.#block;
    this.#block = new Int16Array(BLOCK); // before its buffer is transferred, which sets its length to 0
    this.port.postMessage({ block, position: this.#position, end }, [block.buffer]);
    this.#position += BLOCK;
    this.#filled = 0;
  }
}

registerProcessor("recorder", Recorder);
