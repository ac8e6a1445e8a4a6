"""An authority of our own, and the certificates of servers on this machine that it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
DAY = dt.timedelta(days=1)
USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class Authority:
    """Signs certificates that are good from three days ago on; ``file`` is what has to be trusted.

    ``itself`` is a file with its own certificate and key.
    Each certificate ``lasts`` so long from now on, or has ended if that is negative.
    """

    def __init__(self, folder: Path, name: str, lasts: dt.timedelta = DAY) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        signs = dict.fromkeys(USES, False) | {"key_cert_sign": True}
        self.itself = self._signed(
            self._name,
            self._key,
            lasts,
            x509.BasicConstraints(ca=True, path_length=None),
            x509.KeyUsage(**signs),
            x509.SubjectAlternativeName([LOOPBACK]),
        )
        self.file = folder / f"{name}.pem"
        made = x509.load_pem_x509_certificate(self.itself.read_bytes())
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def server(self, lasts: dt.timedelta = DAY, of: x509.GeneralName = LOOPBACK) -> Path:
        """Return a file with a server's certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._signed(_name("server"), key, lasts, x509.SubjectAlternativeName([of]))

    def _signed(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        lasts: dt.timedelta,
        *extensions: x509.ExtensionType,
    ) -> Path:
        signer, now = self._key.public_key(), dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + lasts)
        )
        for one in (
            *extensions,
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer),
        ):
            critical = isinstance(one, x509.BasicConstraints | x509.KeyUsage)
            builder = builder.add_extension(one, critical=critical)
        made = builder.sign(self._key, hashes.SHA256())
        file = self._folder / f"{made.serial_number}.pem"
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write_bytes(
            key.private_bytes(*form, serialization.NoEncryption())
            + made.public_bytes(serialization.Encoding.PEM)
        )
        return file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
