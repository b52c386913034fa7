"""Redis over TLS: rediss:// with an authority of one's own."""

import shutil
import subprocess

import pytest

from ragpack.errors import CacheUnavailable
from ragpack.registry import open_store

KEY = f"{'a' * 32}:{'b' * 64}"
LARGE = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH, so no certificate can be made")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def tls_port(certificate, tmp_path_factory, free_port):
    port = free_port()
    cert, key = certificate
    command = ["redis-server", "--port", "0", "--tls-port", port, "--save", "", "--bind"]
    command += ["127.0.0.1", "--tls-cert-file", cert, "--tls-key-file", key]
    command += ["--tls-auth-clients", "no", "--dir", tmp_path_factory.mktemp("redis")]
    server = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE)
    while b"Ready to accept connections" not in (line := server.stdout.readline()):
        if not line:
            pytest.skip("this redis-server was built without TLS")
    yield port
    server.kill()
    server.communicate()


def test_values_travel_over_tls(certificate, tls_port):
    store = open_store(f"rediss://localhost:{tls_port}/0?ssl_ca_certs={certificate[0]}")
    store.put_many({KEY: LARGE, KEY + "c": b"small"})
    assert store.get_many([KEY, KEY + "c"]) == [LARGE, b"small"]
    store.close()


def test_a_server_that_nobody_vouches_for_is_refused(tls_port):
    store = open_store(f"rediss://localhost:{tls_port}/0")
    with pytest.raises(CacheUnavailable, match="certificate"):
        store.get_many([KEY])


def test_a_certificate_of_another_host_is_refused(certificate, tls_port):
    store = open_store(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}")
    with pytest.raises(CacheUnavailable, match="certificate"):
        store.get_many([KEY])
