// Past sessions from the agent's history: the list, and one session page by page. Knows the URLs of
// the history; knows no element and no content of messages.

/** Most pages of a session: a million messages, two days and a half. */
const PAGES = 2000;

/** Fetch JSON from the agent; throws an error with the text `missing` for status 404. */
async function fetchJson(path, headers, missing) {
  const gone = () => {
    throw new Error("The agent does not answer.");
  };
  const answer = await fetch(path, { headers }).catch(gone);
  const known = { 403: "This token may not read the past.", 404: missing };
  if (!answer.ok) throw new Error(known[answer.status] ?? `${answer.status} ${answer.statusText}`);
  return answer.json();
}

export function fetchList(headers) {
  return fetchJson("/sessions", headers, "No history is kept here: start the agent with --history.");
}

/** Yield the pages of a session, oldest first: messages, and whether the page is the last. */
export async function* fetchPages(id, headers) {
  let after = 0;
  for (let page = 0; page < PAGES && after !== null; page++) {
    const path = `/sessions/${encodeURIComponent(id)}?after=${after}`;
    const { messages, next } = await fetchJson(path, headers, "It is not kept any more.");
    after = next;
    yield { messages, isLast: next === null };
  }
}
