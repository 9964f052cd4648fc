// The credential and every call to the service. Knows no page.
//
// The one-time code comes in the fragment of the address (a fragment is never sent), is
// exchanged for a session token, and disappears from the address at once. The token lives in
// sessionStorage: this tab, this origin, gone when the tab is closed.

const KEY = "simyard.session";

const SCOPE = "simyard.scope";

let token = sessionStorage.getItem(KEY);
let skew = 0;

/** Says "login" when there is no valid session, "offline" when nobody answers. */
export const bus = new EventTarget();

/** The service answered with a problem document (or something that is none). */
export class Problem extends Error {
  constructor(status, document = {}) {
    super(document.detail || document.title || `The service answered with status ${status}.`);
    this.status = status;
    this.code = document.code ?? "error";
    this.fields = document.errors ?? [];
  }
}

/** Nobody answered. */
export class Offline extends Error {
  constructor(cause) {
    super("The service does not answer.", { cause });
  }
}

export function loggedIn() {
  return token !== null;
}

/** A session may be good for reading only; then nothing is offered that it cannot do. */
export function mayChange() {
  return sessionStorage.getItem(SCOPE) !== "read";
}

function forget() {
  token = null;
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(SCOPE);
}

/** Milliseconds since the epoch on the service's clock: durations tick right on any screen. */
export function serverNow() {
  return Date.now() + skew;
}

/** Take the code out of the address, if one is there. */
export function takeCode() {
  const found = /^#code=([A-Za-z0-9_.~-]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", `${location.pathname}#/`);
  return found[1];
}

export async function exchange(code) {
  forget();
  const answer = await call("POST", "/api/session", { body: { code } });
  token = answer.token;
  sessionStorage.setItem(KEY, token);
  sessionStorage.setItem(SCOPE, answer.scope ?? "full");
}

/** One call; returns the parsed JSON, or raises Problem or Offline. An abort passes through. */
export async function call(method, path, { body, signal } = {}) {
  const response = await send(method, path, { body, signal });
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Offline(error);
  }
}

/** The same, but the answer itself: for bytes. */
export async function send(method, path, { body, signal, accept = "application/json", patience = 20 } = {}) {
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
      signal: within(patience, signal),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A TimeoutError too: a service that hangs is as good as none.
    bus.dispatchEvent(new Event("offline"));
    throw new Offline(error);
  }
  noteClock(response.headers.get("Date"));
  if (response.ok) return response;
  let document = {};
  try {
    document = await response.json();
  } catch {
    // Not a problem document: the status alone is what we know.
  }
  const problem = new Problem(response.status, document ?? {});
  if (response.status === 401 && token) {
    forget();
    bus.dispatchEvent(new Event("login"));
  }
  throw problem;
}

function within(patience, signal) {
  if (!patience || !AbortSignal.any) return signal;
  const limit = AbortSignal.timeout(patience * 1000);
  return signal ? AbortSignal.any([signal, limit]) : limit;
}

// The header has whole seconds only, so a smaller difference says nothing.
function noteClock(header) {
  const time = header ? Date.parse(header) : NaN;
  if (Number.isNaN(time)) return;
  const difference = time - Date.now();
  skew = Math.abs(difference) > 2500 ? difference : 0;
}

/** Path with a query, leaving out what is empty. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}
