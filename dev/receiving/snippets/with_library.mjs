import { Webhook } from "standardwebhooks";

/** Returns the event; throws an error for a wrong signature. `body` is a Buffer, not parsed JSON. */
export function verify(secret, headers, body) {
  return new Webhook(secret).verify(body, headers);
}
