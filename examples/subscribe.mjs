// Prints the live score: a WebSocket client in JavaScript, for Node.js 22 and newer, and for browsers.
//
//   node examples/subscribe.mjs [ws://127.0.0.1:8765/]
//
// Node.js 20.10 to 21 has it behind a flag: node --experimental-websocket examples/subscribe.mjs
// Where a token is asked for, Node takes it from the environment variable TAMULAG_TOKEN.

const REMEDY = "is tamulag-stream running there? does it ask for TAMULAG_TOKEN?";

export function subscribe(address, show, token, end = show) {
  const socket = new WebSocket(address);
  socket.onopen = () => token && socket.send(JSON.stringify({ token }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "sentiment" && message.sentiment !== null) {
      show(`${message.sentiment.toFixed(2)} ${message.label}`);
    } else if (message.type === "status") {
      show([message.state, ...Object.values(message.lost)].join(" "));
    }
  };
  // Node.js 20 reports a failed connection as an error alone, others as an error and a close.
  let ended = false;
  socket.onclose = socket.onerror = ({ code, reason, message }) => {
    if (!ended && code !== 1000 && code !== 1001) {
      end(`${address}: closed: ${[code, reason || message].filter(Boolean).join(" ")}: ${REMEDY}`);
    }
    ended = true;
  };
  return socket;
}

function main(address = "ws://127.0.0.1:8765/") {
  const fail = (why) => {
    console.error(why);
    process.exitCode = 1;
  };
  if (typeof WebSocket === "undefined") {
    fail(`Node.js ${process.version} has no WebSocket: use 22 or newer, or node --experimental-websocket`);
    return;
  }
  try {
    subscribe(address, console.log, process.env.TAMULAG_TOKEN, fail);
  } catch (error) {
    fail(`${address}: ${error.message}: give an address such as ws://127.0.0.1:8765/`);
  }
}

if (typeof process !== "undefined") main(process.argv[2]);
