// Questions to the gateway.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let onLocked = () => {};
export function whenLocked(callback) { onLocked = callback; }

async function ask(method, path, body) {
  const request = { method, headers: { "X-Gateway": "page" }, credentials: "same-origin" };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Refused(0, "The gateway can't be reached");
  }
  let answer = {};
  try { answer = await response.json(); } catch { /* it says nothing */ }
  if (!response.ok) {
    if (response.status === 401 && path !== "/api/login") onLocked();
    throw new Refused(response.status, answer.error || `The gateway answers ${response.status}`);
  }
  return answer;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
export const device = (ident, rest = "") => `/api/device/${encodeURIComponent(ident)}${rest}`;
