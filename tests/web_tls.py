"""Certificates of the loopback web, good and bad, by the name that is asked for (SNI).

An authority is made anew for each web; `ca.pem` in its folder is what a client trusts. Fifty hosts
share a certificate, made when the first of them is asked for.
"""

import datetime
import functools
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KINDS = ("good", "expired", "wrong_name", "self_signed", "unknown_authority")
SHARED = 50
DAY = datetime.timedelta(days=1)


class Authority:
    """Who signs, with what; all of it below one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root = _signed("webtext test authority", self._key, None, self._key, root=True)
        self._other = ec.generate_private_key(ec.SECP256R1())
        self._stranger = _signed("a stranger", self._other, None, self._other, root=True)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))

    def context(self, names: tuple[str, ...], kind: str = "good") -> ssl.SSLContext:
        """What a server shows for these names."""
        path = self.certificate(names, kind)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def certificate(self, names: tuple[str, ...], kind: str = "good") -> Path:
        """The file with the certificate for these names and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, signer = self._root, self._key
        if kind == "unknown_authority":
            issuer, signer = self._stranger, self._other
        if kind == "wrong_name":
            names = ("elsewhere.test",)
        made = _signed(
            names[0],
            key,
            None if kind == "self_signed" else issuer,
            key if kind == "self_signed" else signer,
            names=names,
            age=30 * DAY if kind == "expired" else DAY,
        )
        path = self._folder / f"{names[0]}-{kind}.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
        return path

    def by_name(self, kind_of: Callable[[str], tuple[str, tuple[str, ...]]]) -> ssl.SSLContext:
        """A context for all hosts: `kind_of` a name says how its certificate is, and which names
        share it."""
        made = functools.cache(self.context)

        def choose(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            kind, names = kind_of(name or "")
            sock.context = made(names, kind)

        context = self.context(("default.test",))
        context.sni_callback = choose  # type: ignore[assignment]
        return context


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    *,
    names: tuple[str, ...] = (),
    age: datetime.timedelta = DAY,
    root: bool = False,
) -> x509.Certificate:
    """A certificate that began so long ago, for ten days."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    began = datetime.datetime.now(datetime.UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + 10 * DAY)
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
    )
    if names:
        known = [x509.DNSName(one) for one in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
    return builder.sign(signer, hashes.SHA256())
