"""Makes every credential of docker-compose.yml, and hands each service its own and no other's.

It runs to its end before the services start, at each `up`: what is missing is made, what is
there stays.  ``/made`` keeps one file for each credential; below ``/for`` is a volume for each
service, which that service alone mounts.  A value from the environment, or a file of the same
name in ``/own`` (deploy/secrets on the host), takes the place of one that is made.

    credentials                  make what is missing and hand it out
    credentials account NAME     print the URL of an account of the broker, made if there is none
    credentials relay NAME NODE… the same of an account that relays the rows of these homes alone
    credentials remove NAME      take an account of the broker away
    credentials password         print the password of the pages
    credentials token            print the token with which programs use the API of the pages
    credentials analyst          print the URLs with which people read the databases
    credentials renew            make the broker and the databases other certificates now
    credentials ca               print the certificate that signs them
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from raven_setup.accounts import (
    BROKER_ACCOUNTS,
    MYSQL_RIGHTS,
    NAME,
    checked,
    commanding,
    made_node,
    made_password,
    mysql_account,
    mysql_grants,
    password_line,
)

ROOT: Final = 0
RAVEN: Final = 10001
BROKER: Final = 1883
DATABASE: Final = 999
"""Users that the containers run as: the backup, ours, Mosquitto's, and that of MySQL and of MongoDB."""

USER_OF: Final = {
    "broker": BROKER,
    "mysql": DATABASE,
    "mongo": DATABASE,
    "reader": RAVEN,
    "mongo-recorder": RAVEN,
    "sql-writer": RAVEN,
    "sql-relay": RAVEN,
    "dashboard": RAVEN,
    "verify": RAVEN,
    "backup": ROOT,
}
OF_RELAY: Final = re.compile(
    r"^pattern (write|read) (raven/v1/%u/(?:reading/\w+|run|stored/\+))$", re.MULTILINE
)
"""What a home may at the broker that its relay needs."""
HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
SYSTEM_CA: Final = "/etc/ssl/certs/ca-certificates.crt"
CA_DAYS: Final = 7300
"""Homes keep a copy of the authority's certificate, which nothing renews for them."""
SERVER_DAYS: Final = 730
"""A server's is renewed at the first `up` in its second year."""
CERTIFICATES: Final = {"broker": "server", "mysql": "mysql", "mongo": "mongo"}
"""What the files of a server's certificate are called."""


class Credentials:
    """What was made, what the owner brought, and who gets what."""

    def __init__(
        self,
        environ: Mapping[str, str],
        made: Path = Path("/made"),
        own: Path = Path("/own"),
        handed: Path = Path("/for"),
        acl: Path = Path("/acl"),
    ) -> None:
        self._environ = environ
        self._made = made
        self._own = own
        self._handed = handed
        self._acl = acl

    def hand_out(self) -> None:
        """Make what is missing and give each service what is its own."""
        node = self._node()
        for account in (*BROKER_ACCOUNTS, node):
            self._password("mqtt", account)
        self._certificates()
        self._require_a_published_server()
        self._give_broker()

        for service in ("reader", "sql-relay"):
            self._give(service, "node", node)
        self._give("reader", "mqtt_url", self._mqtt_url(node))
        for service in ("mongo-recorder", "sql-writer", "dashboard", "verify"):
            self._give(service, "mqtt_url", self._mqtt_url(service))
        for service in ("reader", "mongo-recorder", "sql-writer", "dashboard", "verify"):
            self._give_ca(service, "mqtt_ca.pem")

        ca = (self._made / "ca.pem").read_text()
        for server, writer, others in (
            ("mongo", "mongo-recorder", ("dashboard", "verify")),
            ("mysql", "sql-writer", ("sql-relay", "dashboard", "verify")),
        ):
            for service in (writer, *others, "backup"):
                account = writer if service == "backup" else service
                url = self._database_url(server, account, server, f"/credentials/{server}_ca.pem")
                self._give(service, f"{server}_url", self._given(f"{server}_url") or url)
                self._give(service, f"{server}_ca.pem", ca)
        self._give_mongo()
        self._give_mysql()

        self._give("sql-relay", "upstream_mqtt_url", self._given("upstream_mqtt_url"))
        self._give_ca("sql-relay", "upstream_ca.pem")

        for name in ("password", "token"):
            self._give("dashboard", name, self.of_dashboard(name))
        self._give("dashboard", "notify_urls", self._given("raven_notify_urls"))

    def of_dashboard(self, name: str) -> str:
        """Return the password or the token of the pages."""
        return self._password("dashboard", name)

    def analyst(self) -> Iterator[str]:
        """Yield the URLs of the account that reads the databases: as others reach what is published."""
        for server in ("mysql", "mongo"):
            host = server
            if told := self._environ.get(f"{server.upper()}_PUBLISH"):
                host = f"{self._reached_as(server)}:{told.rpartition(':')[2]}"
            yield self._database_url(server, "analyst", host, "ca.pem")

    def account(self, name: str) -> str:
        """Return the URL of an account of our broker, made if there is none."""
        password = self._password("mqtt", checked(name))
        self._certificates()
        self._give_broker()
        return f"mqtts://{name}:{quote(password, '')}@{self._reached_as('broker')}:8883"

    def relay(self, name: str, nodes: list[str]) -> str:
        """Return the URL of an account that relays these homes' rows and no others', made if there is none."""
        for one in (name, *nodes):
            if checked(one) in BROKER_ACCOUNTS:
                raise ValueError(f"{one!r} is the account of a service: allowed are homes")
        _write(self._made / f"relay-{name}", "\n".join(nodes) + "\n")
        return self.account(name)

    def remove(self, name: str) -> None:
        """Take an account of our broker away."""
        (self._made / f"relay-{name}").unlink(missing_ok=True)
        try:
            (self._made / f"mqtt-{name}").unlink()
        except FileNotFoundError:
            raise ValueError(f"{name!r} is no account of the broker") from None
        self._give_broker()

    def renew(self) -> None:
        """Make other certificates, whatever is left of the old ones."""
        for names in self._made.glob("*.names"):
            names.unlink()
        self.hand_out()

    def ca(self) -> str:
        """Return the certificate that signs those of the servers."""
        self._certificates()
        return (self._made / "ca.pem").read_text()

    def _given(self, name: str) -> str:
        """Return what the owner brought under a name, or nothing."""
        if text := self._environ.get(name.upper()):
            return text
        file = self._own / name
        return file.read_text().strip() if file.is_file() else ""

    def _password(self, server: str, account: str) -> str:
        """Return an account's password: the owner's, or one that is made once."""
        name = f"{server}-{account}"
        return self._once(name, self._given(name) or made_password())

    def _once(self, name: str, text: str) -> str:
        """Keep a text under a name unless there is one; the owner's takes its place."""
        file = self._made / name
        if not file.exists() or self._given(name):
            _write(file, text)
        return file.read_text()

    def _node(self) -> str:
        """Return the reader's name: as told, its account's at another broker, or made once."""
        account = unquote(urlsplit(self._given("mqtt_url")).username or "")
        told = self._environ.get("RAVEN_NODE") or (account if NAME.fullmatch(account) else "")
        if told in BROKER_ACCOUNTS:
            raise ValueError(f"{told!r} is the account of a service: no home can be called so")
        return checked(told) if told else self._once("node", made_node())

    def _mqtt_url(self, account: str) -> str:
        ours = f"mqtt://{account}:{quote(self._password('mqtt', account), '')}@broker"
        return self._given("mqtt_url") or ours

    def _database_url(self, server: str, account: str, host: str, ca: str) -> str:
        """Return the URL of an account of a database; one that is published speaks TLS alone."""
        scheme, trust = {
            "mysql": ("mysql", f"?ssl_ca={ca}"),
            "mongo": ("mongodb", f"?tls=true&tlsCAFile={ca}"),
        }[server]
        password = quote(self._password(server, account), "")
        published = self._environ.get(f"{server.upper()}_PUBLISH")
        return f"{scheme}://{account}:{password}@{host}/raven{trust if published else ''}"

    def _names(self, server: str) -> list[str]:
        """Return the names under which a server's certificate is asked for."""
        told = self._environ.get("SERVER_NAME", "").replace(",", " ").split()
        for name in told:
            if _kind(name) == "DNS" and not HOST.fullmatch(name):
                raise ValueError(
                    f"SERVER_NAME has {name!r}: allowed are names and addresses of this machine, "
                    "without port"
                )
        return [*told, "localhost", "127.0.0.1", server]

    def _reached_as(self, server: str) -> str:
        """Return the name under which others reach a server, as a URL has it."""
        name = self._names(server)[0]
        return f"[{name}]" if ":" in name else name

    def _require_a_published_server(self) -> None:
        """Refuse a server that other machines are to reach, and cannot."""
        if self._environ.get("SERVER_NAME") and not self._environ.get("MQTTS_PUBLISH"):
            raise ValueError(
                "SERVER_NAME is set, so other machines are to reach the broker: say on which port "
                "with MQTTS_PUBLISH=8883 (without it, this machine alone can)"
            )

    def _certificates(self) -> None:
        """Make an authority, and each server's certificate for other names or its second half."""
        ca, ca_key = self._made / "ca.pem", self._made / "ca.key"
        if not ca.exists():
            usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
            _certificate(ca, ca_key, "python-raven", usage, CA_DAYS)
        for server, file in CERTIFICATES.items():
            self._certificate(server, file, ["-CA", str(ca), "-CAkey", str(ca_key)])

    def _certificate(self, server: str, file: str, signed: list[str]) -> None:
        names, pem = self._made / f"{file}.names", self._made / f"{file}.pem"
        its = self._names(server)
        wanted = json.dumps([SERVER_DAYS, *its])
        if (
            not names.exists()
            or names.read_text() != wanted
            or _end_of(pem) - time.time() < SERVER_DAYS * 86400 / 2
        ):
            usage = [
                "basicConstraints=critical,CA:FALSE",
                "keyUsage=critical,digitalSignature",
                "extendedKeyUsage=serverAuth",
                f"subjectAltName={','.join(f'{_kind(name)}:{name}' for name in its)}",
            ]
            _certificate(pem, self._made / f"{file}.key", server, usage, SERVER_DAYS, signed)
            _write(names, wanted)

    def _give_broker(self) -> None:
        lines = [
            password_line(file.name.removeprefix("mqtt-"), file.read_text())
            for file in sorted(self._made.glob("mqtt-*"))
        ]
        self._give("broker", "passwords", "\n".join(lines) + "\n")
        allowed = self._environ.get("HOME_ASSISTANT_COMMANDS", self._node()).replace(",", " ")
        acl = self._acl.read_text()
        relays = "".join(
            relay_lines(acl, file.name.removeprefix("relay-"), file.read_text().split())
            for file in sorted(self._made.glob("relay-*"))
        )
        self._give("broker", "acl", f"{acl}{commanding(allowed.split())}{relays}")
        for name in ("server.pem", "server.key"):
            self._give("broker", name, self._given(name) or (self._made / name).read_text())
        self._give("broker", "server.end", f"{_end_of(self._handed / 'broker' / 'server.pem')}\n")
        password = self._password("mqtt", "health")
        self._give("broker", "health", f"-u health\n-P {password}\n-i health\n")
        forget = f"-u verify\n-P {self._password('mqtt', 'verify')}\n-W 5\n"
        forget += "-q 1\n--retained-only\n--remove-retained\n-F removed %t\n"
        self._give("broker", "forget", forget)

    def _give_mongo(self) -> None:
        letters = {"db": "raven", "collection": "dead_letter"}
        role = {
            "role": "verify",
            "privileges": [{"resource": letters, "actions": ["remove"]}],
            "roles": [{"role": "read", "db": "raven"}],
        }
        # The server runs this at each start, so that an account that came later is made too.
        script = 'raven = db.getSiblingDB("raven")\n'
        script += f'raven.getRole("verify") || raven.createRole({json.dumps(role)})\n'
        roles = {"verify": "verify", "dashboard": "read", "analyst": "read"}
        roles["mongo-recorder"] = "readWrite"
        for account, its_role in roles.items():
            user = {
                "user": account,
                "pwd": self._password("mongo", account),
                "roles": [{"role": its_role, "db": "raven"}],
            }
            script += f'raven.getUser("{account}") || raven.createUser({json.dumps(user)})\n'
        self._give("mongo", "root", self._password("mongo", "root"))
        self._give("mongo", "accounts.js", script)
        self._give("mongo", "made.sh", _made("/data/db"))
        self._give("mongo", "ca.pem", (self._made / "ca.pem").read_text())
        pem = (self._made / "mongo.key").read_text() + (self._made / "mongo.pem").read_text()
        self._give("mongo", "server.pem", pem)
        ca = "/docker-entrypoint-initdb.d/ca.pem"
        url, _, trust = self._database_url("mongo", "root", "localhost", ca).partition("?")
        login = f"{url}?authSource=admin{trust and '&'}{trust}"
        self._give("mongo", "login.mongodb", f"db = connect({json.dumps(login)})\n")
        tools = login.replace("/raven?", "/?")
        self._give("mongo", "tools.yaml", f"uri: {json.dumps(tools)}\n")

    def _give_mysql(self) -> None:
        # The server runs this at each start, so that an account that came later is made too.
        hosts = {**dict.fromkeys(MYSQL_RIGHTS, "%"), "health": "127.0.0.1", "root": "localhost"}
        lines = ["CREATE DATABASE IF NOT EXISTS raven;"]
        for account, host in hosts.items():
            lines += mysql_account(account, host, self._password("mysql", account))
        for account in MYSQL_RIGHTS:
            if account in ("sql-relay", "verify"):
                # What an older version granted is more.
                lines.append(f"REVOKE IF EXISTS ALL ON raven.* FROM '{account}'@'%';")
            lines += mysql_grants(account, "%")
        self._give("mysql", "accounts.sql", "\n".join(lines) + "\n")
        self._give("mysql", "made.sh", _made("/var/lib/mysql"))
        self._give("mysql", "ca.pem", (self._made / "ca.pem").read_text())
        for part in ("pem", "key"):
            self._give("mysql", f"server.{part}", (self._made / f"mysql.{part}").read_text())
        self._give("mysql", "root", self._password("mysql", "root"))
        for account in ("health", "root"):
            password = re.sub(r'([\\"])', r"\\\1", self._password("mysql", account))
            text = f'[client]\nuser={account}\npassword="{password}"\nhost={hosts[account]}\n'
            self._give("mysql", f"{account}.cnf", text)

    def _give_ca(self, service: str, name: str) -> None:
        """Give the owner's certificates to trust, or a link to those of the system."""
        if text := self._given(name):
            self._give(service, name, text)
            return
        file = self._handed / service / name
        file.unlink(missing_ok=True)
        file.symlink_to(SYSTEM_CA)

    def _give(self, service: str, name: str, text: str) -> None:
        _write(self._handed / service / name, text, USER_OF[service])


def relay_lines(acl: str, account: str, nodes: list[str]) -> str:
    """Return the lines by which an account relays some homes' rows, from those of every home."""
    lines = [
        f"topic {may} {topic.replace('%u', node)}\n"
        for node in nodes
        for may, topic in OF_RELAY.findall(acl)
    ]
    return f"user {account}\n{''.join(lines)}"


def _made(folder: str) -> str:
    """Return the script with which a database's first start ends, on its disk before anybody writes."""
    return f"sync -f {folder} && rm -f {folder}/.being-made && sync {folder}\n"


def _kind(name: str) -> str:
    """Say whether a certificate's name is an address or a host's name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def _end_of(file: Path) -> int:
    """Return when a certificate, the first in its file, ends: seconds since 1970."""
    command = ["openssl", "x509", "-noout", "-enddate", "-in", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter="))


def _certificate(
    file: Path,
    key: Path,
    name: str,
    extensions: list[str],
    days: int,
    signed: list[str] | None = None,
) -> None:
    """Make a key and a certificate, signed by itself if nobody else signs it."""
    with tempfile.TemporaryDirectory() as folder:
        new, new_key = Path(folder) / "pem", Path(folder) / "key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:P-256", "-noenc", "-days", str(days), "-subj", f"/CN={name}"]
        command += [word for extension in extensions for word in ("-addext", extension)]
        command += [*(signed or []), "-out", str(new), "-keyout", str(new_key)]
        subprocess.run(command, check=True, capture_output=True)
        _write(key, new_key.read_text())
        _write(file, new.read_text())


def _write(file: Path, text: str, user: int | None = None) -> None:
    """Put a text into a file that its user alone can read; whole, or not at all, and for good."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    with new.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    if user is not None:
        os.chown(new, user, user)
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    credentials = Credentials(os.environ)
    try:
        match arguments:
            case []:
                credentials.hand_out()
            case ["account", name]:
                print(credentials.account(name))
            case ["relay", name, *nodes] if nodes:
                print(credentials.relay(name, nodes))
            case ["remove", name]:
                credentials.remove(name)
            case ["renew"]:
                credentials.renew()
            case ["ca"]:
                print(credentials.ca(), end="")
            case ["analyst"]:
                print(*credentials.analyst(), sep="\n")
            case ["password" | "token" as name]:
                print(credentials.of_dashboard(name))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"credentials: {said}", file=sys.stderr)
        return 1
    if arguments and arguments[0] in ("account", "relay", "remove", "renew"):
        print("the broker takes it within half a minute", file=sys.stderr)
    if arguments == ["renew"]:
        print("a published database takes it at its next start", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
