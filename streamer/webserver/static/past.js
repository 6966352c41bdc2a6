// Past sessions as the agent's history gives them: the list, and one session page by page. Knows the
// addresses of the history; knows no element and nothing of what is in a message.

/** Pages of a session that are asked for at most: a million messages, two days and a half. */
const PAGES = 2000;

/** Fetch from the agent; `missing` is said if it has nothing there. */
async function fetchJson(path, headers, missing) {
  const gone = () => {
    throw new Error("The agent does not answer.");
  };
  const answer = await fetch(path, { headers }).catch(gone);
  if (!answer.ok) throw new Error(answer.status === 404 ? missing : `${answer.status} ${answer.statusText}`);
  return answer.json();
}

export function fetchList(headers) {
  return fetchJson("/sessions", headers, "No history is kept here: start the agent with --history.");
}

/** Yield the pages of a session, oldest first: its messages, and whether there are no more. */
export async function* fetchPages(id, headers) {
  let after = 0;
  for (let page = 0; page < PAGES && after !== null; page++) {
    const path = `/sessions/${encodeURIComponent(id)}?after=${after}`;
    const { messages, next } = await fetchJson(path, headers, "It is not kept any more.");
    after = next;
    yield { messages, isLast: next === null };
  }
}
