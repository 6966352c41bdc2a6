// Collects the microphone's sound into blocks of 20 ms and posts them as 16 bit samples, with the
// number of samples before each. Runs in the audio thread and knows nothing of the page.

class Recorder extends AudioWorkletProcessor {
  #block = new Int16Array(Math.round(sampleRate / 50));
  #filled = 0;
  #position = 0;

  process([[channel]]) {
    if (!channel) return true;
    for (const value of channel) {
      this.#block[this.#filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
      if (this.#filled === this.#block.length) this.#post();
    }
    return true;
  }

  #post() {
    // currentTime is that of the first sample of the 128 at hand; the block ends within them.
    const end = currentTime + 128 / sampleRate;
    const block = this.#block;
    this.#block = new Int16Array(block.length); // before its buffer is transferred, which sets its length to 0
    this.port.postMessage({ block, position: this.#position, end }, [block.buffer]);
    this.#position += this.#block.length;
    this.#filled = 0;
  }
}

registerProcessor("recorder", Recorder);
