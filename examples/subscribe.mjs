// Prints the live score: a WebSocket client in JavaScript, for Node.js 22 and newer, and for browsers.
//
//   node examples/subscribe.mjs [ws://127.0.0.1:8765/]
//
// Where a token is asked for, Node takes it from the environment variable TAMULAG_TOKEN.

export function subscribe(address, show, token) {
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
  socket.onclose = ({ code, reason }) => show(`closed: ${code} ${reason}`);
  return socket;
}

if (typeof process !== "undefined") {
  subscribe(process.argv[2] ?? "ws://127.0.0.1:8765/", console.log, process.env.TAMULAG_TOKEN);
}
