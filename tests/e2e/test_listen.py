"""`waybill listen` forwards a tenant's events to a server on this machine, signed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from dev.client import Client
from dev.stack.stack import Stack
from tests.e2e.files import random_file, send_file, settled
from tests.eventually import eventually
from tests.fakes import replies
from tests.fakes.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
COMMAND = "from gateway.administration.cli import main; main()"


@contextmanager
def listening(system: Stack, port: int, *options: str, log: Path) -> Iterator[None]:
    environment = {
        "PYTHONUNBUFFERED": "1",
        "WAYBILL_URL": system.url,
        "WAYBILL_API_KEY": str(system.api_key),
        "WAYBILL_LISTEN_SECRET": SECRET,
    }
    with log.open("w") as output:
        process = subprocess.Popen(  # our own command
            [sys.executable, "-c", COMMAND, "listen", str(port), *options],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(log.read_text, until=lambda text: "listening" in text)
            yield
        finally:
            process.terminate()
            process.wait()


def stored(client: Client, path: Path) -> str:
    """Upload a file; return the id of its upload."""
    job = settled(client, client.finalize(send_file(client, path)).json()["job_id"])
    upload_id: str = job["upload_id"]
    return upload_id


def test_events_are_forwarded_once_each_and_a_line_tells_the_answer(
    system: Stack, client: Client, tmp_path: Path
) -> None:
    path, log = tmp_path / "note.bin", tmp_path / "listen.log"
    random_file(path, mebibytes=1, seed=51)
    with Receiver() as receiver:
        receiver.answer_with(replies.status(500), replies.status(204))
        options = ("--path", "/hook", "--type", "upload.*")
        with listening(system, receiver.port, *options, log=log):
            uploads = [stored(client, path), stored(client, path)]
            received = receiver.wait_for(2, timeout=timedelta(seconds=30))
            text = eventually(log.read_text, until=lambda text: "  204  " in text)
        events = [request.verified_with(SECRET) for request in received]
        assert [event["data"]["upload_id"] for event in events] == uploads
        assert [event["type"] for event in events] == ["upload.stored", "upload.stored"]
        assert {request.path for request in received} == {"/hook"}
        refused, accepted = text.splitlines()[-2:]
        assert "  500  " in refused
        assert "  204  " in accepted
        assert SECRET not in text


def test_listening_goes_on_after_a_restart_of_the_gateway(
    system: Stack, client: Client, tmp_path: Path
) -> None:
    path, log = tmp_path / "note.bin", tmp_path / "listen.log"
    random_file(path, mebibytes=1, seed=52)
    with Receiver() as receiver, listening(system, receiver.port, log=log):
        system.processes["gateway"].kill()
        system.processes["gateway"].wait_ready()
        upload_id = stored(client, path)
        (request,) = receiver.wait_for(1, timeout=timedelta(seconds=60))
    assert json.loads(request.body)["data"]["upload_id"] == upload_id


def test_a_refused_key_ends_the_command_with_its_reason(system: Stack) -> None:
    result = subprocess.run(  # our own command
        [sys.executable, "-c", COMMAND, "listen", "9", "--url", system.url],
        env={"WAYBILL_API_KEY": "wrong"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "no events from the gateway: 401" in result.stderr
