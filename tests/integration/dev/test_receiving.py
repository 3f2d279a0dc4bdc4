"""The programs of docs/receiving-webhooks.md verify what Waybill signs, and refuse everything else."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import pytest

from dev.receiving.page import SNIPPETS
from dev.stack.checkout import CHECKOUT
from schemas.events.envelope import CONTENT_TYPE, encode
from schemas.events.examples import example_envelope
from schemas.policy import webhook_secrets, webhook_signing
from schemas.policy.webhook_secrets import SecretKind

SHARED, OTHER_SHARED = (webhook_secrets.generate(SecretKind.V1) for _ in range(2))
PRIVATE, OTHER_PRIVATE = (webhook_secrets.generate(SecretKind.V1A) for _ in range(2))
NPM = CHECKOUT / "var" / "npm" / "node_modules"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
needs_npm = pytest.mark.skipif(
    not (NPM / "standardwebhooks").exists(),
    reason="npm's standardwebhooks is not installed: run `make npm`",
)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request, and whether a receiver with the first key accepts it."""

    name: str
    headers: Mapping[str, str]
    body: bytes
    is_authentic: bool

    def changed(self, name: str, **fields: str | None) -> "Request":
        """Return the request with other headers (None: without), which no receiver accepts."""
        headers = dict(self.headers)
        for field, value in fields.items():
            headers.pop(f"webhook-{field}", None)
            if value is not None:
                headers[f"webhook-{field}"] = value
        return replace(self, name=name, headers=headers, is_authentic=False)


Verify = Callable[[str, Sequence[Request]], list[bool]]
"""Returns what a program says of each request, with the key of the receiver."""


def requests(secret: str, *, rotated: str, other_kind: str) -> list[Request]:
    """Return requests to a receiver that verifies with `secret`.

    Args:
        secret: a secret of the endpoint.
        rotated: another secret of the same kind.
        other_kind: a secret of the other kind.
    """
    body = encode(example_envelope("document.ingested"))

    def signed(
        name: str, *secrets: str, is_authentic: bool = True, age: timedelta = timedelta(0)
    ) -> Request:
        return Request(
            name=name,
            headers=webhook_signing.sign(
                *map(webhook_signing.parse, secrets),
                message_id="01a1f8ef-b442-7c3e-9b1d-4f60a2e85c07",
                timestamp=datetime.now(UTC) - age,
                body=body,
            ),
            body=body,
            is_authentic=is_authentic,
        )

    plain = signed("signed", secret)
    signature = plain.headers["webhook-signature"]
    version = signature.partition(",")[0]
    return [
        plain,
        signed("new secret first", secret, rotated),
        signed("old secret second", rotated, secret),
        signed("beside the other kind", other_kind, secret),
        signed("by the rotated secret alone", rotated, is_authentic=False),
        signed("by the other kind alone", other_kind, is_authentic=False),
        replace(plain, name="changed body", body=body[:-1] + b" ", is_authentic=False),
        plain.changed("changed id", id="another"),
        plain.changed("no id", id=None),
        plain.changed("no timestamp", timestamp=None),
        plain.changed("no signature", signature=None),
        plain.changed("empty signature", signature=""),
        plain.changed("no base64", signature=f"{version},%%%"),
        plain.changed("no comma", signature=signature.replace(",", "")),
        plain.changed("only the version", signature=f"{version},"),
        plain.changed("other version", signature=f"v9,{signature.partition(',')[2]}"),
        plain.changed("malformed timestamp", timestamp="yesterday"),
        signed("old", secret, is_authentic=False, age=timedelta(minutes=6)),
        signed("from the future", secret, is_authentic=False, age=-timedelta(minutes=6)),
    ]


def requests_v1() -> list[Request]:
    return requests(SHARED, rotated=OTHER_SHARED, other_kind=PRIVATE)


def requests_v1a() -> list[Request]:
    return requests(PRIVATE, rotated=OTHER_PRIVATE, other_kind=SHARED)


def mistakes(verify: Verify, key: str, cases: Sequence[Request]) -> list[str]:
    verdicts = verify(key, cases)
    return [
        case.name
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict != case.is_authentic
    ]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SNIPPETS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_python_library_verifies_a_delivery() -> None:
    program = module("with_library")

    def verify(key: str, cases: Sequence[Request]) -> list[bool]:
        verdicts = []
        for case in cases:
            try:
                event = program.verify(key, case.headers, case.body)
            except program.Unverified:
                verdicts.append(False)
            else:
                assert event == json.loads(case.body)
                verdicts.append(True)
        return verdicts

    assert mistakes(verify, SHARED, requests_v1()) == []


def test_python_verifies_a_delivery_by_hand() -> None:
    check = module("by_hand").is_authentic

    assert mistakes(in_process(check), SHARED, requests_v1()) == []


def test_python_verifies_an_ed25519_signature() -> None:
    check = module("ed25519").is_authentic

    assert mistakes(in_process(check), public(PRIVATE), requests_v1a()) == []


def in_process(check: Callable[[str, Mapping[str, str], bytes], bool]) -> Verify:
    return lambda key, cases: [check(key, case.headers, case.body) for case in cases]


def public(secret: str) -> str:
    return webhook_secrets.public_key(secret)


NODE = """
import { readFileSync } from "node:fs";
import * as program from "./PROGRAM";
const { key, cases } = JSON.parse(readFileSync(0));
const verdicts = cases.map(({ headers, body }) => {
  const bytes = Buffer.from(body, "base64");
  if (program.isAuthentic) return program.isAuthentic(key, headers, bytes);
  try {
    return program.verify(key, headers, bytes).specversion === "1.0";
  } catch {
    return false;
  }
});
console.log(JSON.stringify(verdicts));
"""


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], Verify]:
    """Return a function that runs a program for Node.js."""

    def of(program: str) -> Verify:
        shutil.copy(SNIPPETS / program, tmp_path)
        (tmp_path / "run.mjs").write_text(NODE.replace("PROGRAM", program))
        if NPM.exists():
            (tmp_path / "node_modules").symlink_to(NPM)
        return lambda key, cases: run(["node", "run.mjs"], tmp_path, key=key, cases=cases)

    return of


def run(
    command: Sequence[str], directory: Path, *, key: str, cases: Sequence[Request], **variables: str
) -> list[bool]:
    """Run a program that reads a key and requests as JSON, and prints its verdicts."""
    given = {"key": key, "cases": [{"headers": c.headers, "body": c.body} for c in cases]}
    done = subprocess.run(
        command,
        cwd=directory,
        input=msgspec.json.encode(given),
        env=os.environ | variables,  # noqa: TID251  # the environment of another program
        stdout=subprocess.PIPE,
        check=True,
    )
    verdicts: list[bool] = json.loads(done.stdout)
    return verdicts


@needs_node
@needs_npm
def test_the_npm_library_verifies_a_delivery(node: Callable[[str], Verify]) -> None:
    assert mistakes(node("with_library.mjs"), SHARED, requests_v1()) == []


@needs_node
def test_node_verifies_a_delivery_by_hand(node: Callable[[str], Verify]) -> None:
    verify = node("by_hand.mjs")

    assert mistakes(verify, SHARED, requests_v1()) == []
    assert mistakes(verify, public(PRIVATE), requests_v1a()) == []


GO = """
package main

import (
	"encoding/json"
	"net/http"
	"os"

	"receiver/webhooks"
)

func main() {
	var given struct {
		Key   string
		Cases []struct {
			Headers map[string]string
			Body    []byte
		}
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	verdicts := []bool{}
	for _, each := range given.Cases {
		headers := http.Header{}
		for name, value := range each.Headers {
			headers.Set(name, value)
		}
		verdicts = append(verdicts, webhooks.IsAuthentic(given.Key, headers, each.Body))
	}
	json.NewEncoder(os.Stdout).Encode(verdicts)
}
"""


@needs_go
def test_go_verifies_a_delivery(tmp_path: Path) -> None:
    (tmp_path / "webhooks").mkdir()
    shutil.copy(SNIPPETS / "verify.go", tmp_path / "webhooks")
    (tmp_path / "main.go").write_text(GO)
    (tmp_path / "go.mod").write_text("module receiver\n\ngo 1.19\n")
    paths = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path")}

    def verify(key: str, cases: Sequence[Request]) -> list[bool]:
        return run(["go", "run", "."], tmp_path, key=key, cases=cases, GOFLAGS="-mod=mod", **paths)

    assert mistakes(verify, SHARED, requests_v1()) == []
    assert mistakes(verify, public(PRIVATE), requests_v1a()) == []


@needs_openssl
@pytest.mark.parametrize(
    ("program", "key", "cases"),
    [
        pytest.param("verify.sh", SHARED, requests_v1, id="v1"),
        pytest.param("verify_ed25519.sh", public(PRIVATE), requests_v1a, id="v1a"),
    ],
)
def test_openssl_verifies_a_delivery(
    tmp_path: Path, program: str, key: str, cases: Callable[[], list[Request]]
) -> None:
    def verify(key: str, cases: Sequence[Request]) -> list[bool]:
        return [is_verified_by(SNIPPETS / program, key, case) for case in cases]

    def is_verified_by(script: Path, key: str, case: Request) -> bool:
        body = tmp_path / "body.json"
        body.write_bytes(case.body)
        fields = (
            case.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        return (
            subprocess.run(["sh", str(script), key, *fields, str(body)], check=False).returncode
            == 0
        )

    # The scripts compare the signature and leave the time to their caller.
    timeless = [case for case in cases() if case.name not in {"old", "from the future"}]
    assert mistakes(verify, key, timeless) == []


@dataclass(frozen=True, kw_only=True)
class Receiver:
    url: str
    database: Path

    def ids(self) -> list[str]:
        with sqlite3.connect(self.database) as database:
            return [row[0] for row in database.execute("SELECT id FROM received")]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """The receiver of the page, on a free port."""
    database = tmp_path / "received.sqlite"
    command = [sys.executable, str(SNIPPETS / "receiver.py"), SHARED, str(database), "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().removeprefix("listening on ").strip()
            yield Receiver(url=f"http://127.0.0.1:{port}/hooks", database=database)
        finally:
            process.terminate()


def test_the_receiver_stores_a_repeated_event_once(receiver: Receiver) -> None:
    sent = requests_v1()[0]
    event: dict[str, Any] = json.loads(sent.body)
    with httpx.Client() as client:

        def post(case: Request) -> int:
            headers = {**case.headers, "content-type": CONTENT_TYPE}
            return client.post(receiver.url, headers=headers, content=case.body).status_code

        assert [post(sent), post(sent)] == [204, 204]
        assert receiver.ids() == [event["id"]]
        refused = [case for case in requests_v1() if not case.is_authentic]
        assert {post(case) for case in refused} == {400}
        assert post(replace(sent, body=b" " * 100_000)) == 413
        assert receiver.ids() == [event["id"]]


@needs_openssl
@needs_curl
def test_an_event_sent_with_curl_is_accepted(receiver: Receiver, tmp_path: Path) -> None:
    body = tmp_path / "event.json"
    body.write_bytes(msgspec.json.format(encode(example_envelope("upload.stored")), indent=2))

    def send(secret: str) -> str:
        command = ["sh", str(SNIPPETS / "send.sh"), secret, receiver.url, str(body)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert send(OTHER_SHARED) == "400"
    assert send(SHARED) == "204"
    assert receiver.ids() == [str(example_envelope("upload.stored").id)]
