import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";

const TOLERANCE_SECONDS = 5 * 60;

/** Checks a signature with `whsec_…` (v1) or `whpk_…` (v1a); `body` is a Buffer. */
export function isAuthentic(key, headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]+$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const check = key.startsWith("whpk_") ? ed25519(key) : hmac(key);
  return (headers["webhook-signature"] ?? "")
    .split(" ")
    .map((each) => each.split(","))
    .some(([version, signature]) => check(version, Buffer.from(signature ?? "", "base64"), content));
}

function hmac(secret) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return (version, signature, content) => {
    const expected = createHmac("sha256", key).update(content).digest();
    return version === "v1" && signature.length === expected.length && timingSafeEqual(signature, expected);
  };
}

function ed25519(publicKey) {
  const x = Buffer.from(publicKey.replace(/^whpk_/, ""), "base64").toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return (version, signature, content) => version === "v1a" && verify(null, content, key, signature);
}
