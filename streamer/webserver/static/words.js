// Texts for numbers, reasons and states. Knows no element.

export const MODALITIES = ["text", "audio", "vision"];

/** A number with its sign; zero after rounding is positive. */
export function signed(value, digits = 2) {
  if (value == null) return "–";
  const rounded = value.toFixed(digits);
  return (Number(rounded) < 0 ? "−" : "+") + rounded.replace("-", "");
}

export const plain = (word) => word.replaceAll("_", " ");

export const seconds = (value, digits = 2) =>
  value == null ? "not measured" : `${value.toFixed(digits)} s`;

/** A device or file without the folders that lead to it. */
export const short = (name) => name.replace(/(\/[^\s/]+)+\/(?=[^\s/])/g, "");

/** Session time as 1:05 or 1:02:03. */
export function clock(time) {
  const whole = Math.max(0, Math.floor(time + 1e-6));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** "missing (camera lost)", "stale (no face)", "ok". */
export function condition(part) {
  return part.reason ? `${part.status} (${plain(part.reason)})` : part.status;
}

/** One sentence about a score, for a screen reader. */
export function sentence(message) {
  if (!message || message.sentiment == null) return "no score";
  const band = message.interval;
  const range = band ? `, 90 % interval ${signed(band[0])} to ${signed(band[1])}` : "";
  return `${signed(message.sentiment)} ${message.label}${range}`;
}

/** An event's name with its reason or detail. */
export function happening(event) {
  const what = [event.modality, plain(event.event)].filter(Boolean).join(": ");
  const why = event.reason ? plain(event.reason) : event.detail;
  return why ? `${what}, ${short(why)}` : what;
}
