from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from dev.stack.certificates import LOOPBACK, Certificates


def read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_the_server_certificate_is_valid_for_clients_of_the_authority(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    made.make()

    verifier = (
        PolicyBuilder()
        .store(Store([read(made.authority)]))
        .build_server_verifier(x509.IPAddress(LOOPBACK))
    )

    assert len(verifier.verify(read(made.server), [])) == 2


def test_keys_are_private(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    made.make()

    assert made.server_key.stat().st_mode & 0o077 == 0
    assert {file.name for file in tmp_path.iterdir()} == {
        "authority.pem",
        "server.pem",
        "server.key",
    }
