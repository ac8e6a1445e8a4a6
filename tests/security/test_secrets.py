"""Passwords and the network's keys stay where they belong, whatever is asked, sent or broken."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from raven_backup.settings import BackupSettings
from raven_dashboard.settings import DashboardSettings
from raven_export.settings import ExportSettings
from raven_harness import stack
from raven_mongo_recorder.settings import RecorderSettings
from raven_reader.settings import ReaderSettings
from raven_sql_relay.settings import RelaySettings
from raven_sql_writer.settings import WriterSettings
from raven_verify.settings import VerifySettings
from ravenbus.errors import SettingsError
from ravenbus.settings import Settings
from tests.system.sql import Db
from tests.system.system import NODE, System, wait_until
from tests.unit.reader.examples import demand, device_info, fragment

from .test_stick import Stick

INSTALL_CODE = "0123456789abcdef"
LINK_KEY = "00112233445566778899aabbccddeeff"
AUTH = "hush-hush"
SECRET = "hunter2"  # noqa: S105 - everybody knows it
SERVICES: dict[str, type[Settings]] = {
    "raven-reader": ReaderSettings,
    "raven-mongo-recorder": RecorderSettings,
    "raven-sql-writer": WriterSettings,
    "raven-sql-relay": RelaySettings,
    "raven-dashboard": DashboardSettings,
    "raven-verify": VerifySettings,
    "raven-export": ExportSettings,
    "raven-import": ExportSettings,
    "raven-backup": BackupSettings,
    "raven-restore": BackupSettings,
}
URLS = ("MQTT_URL", "UPSTREAM_MQTT_URL", "MYSQL_URL", "MONGO_URL")


class Talkative(System):
    """Every service, saying all that it can, and a stick that tells its secrets."""

    def __init__(self, folder: Path, mongo: stack.Mongo | None, db: Db) -> None:
        super().__init__(folder, mongo)
        self.sql = db
        self.stick = Stick()
        broker = self.broker.url
        self.writer = stack.sql_writer(folder, broker("sql-writer"), db.url)
        self.relay = stack.sql_relay(folder, db.url, broker(NODE), RAVEN_NODE=NODE)
        self.services = [self.reader, self.recorder, self.writer, self.relay]
        self.others += [self.writer, self.relay]
        self.reader.env |= {
            "RAVEN_DEVICE": self.stick.address,
            "RAVEN_PUBLISH_RAW": "true",
            "RAVEN_MAX_CLOCK_SKEW_S": "0",
        }
        self.ports = {one.name: stack.free_port() for one in self.services}
        for one in self.services:
            one.env["RAVEN_LOG_LEVEL"] = "debug"
            one.env["RAVEN_HEALTH_FILE"] = str(folder / f"{one.name}.health")
            one.env["RAVEN_METRICS_PORT"] = str(self.ports[one.name])

    @property
    def secrets(self) -> list[str]:
        used = (NODE, "mongo-recorder", "sql-writer")
        passwords = [self.broker.passwords[account] for account in used]
        return [*passwords, self.sql.password, INSTALL_CODE, LINK_KEY, AUTH]

    def require_silence(self, said: str, where: str) -> None:
        """Require that a text holds no secret, in any spelling of it."""
        plain = said.lower().replace(" ", "")
        for secret in self.secrets:
            forms = [secret, base64.b64encode(secret.encode()).decode().rstrip("=")[1:-1]]
            for form in forms:
                assert form.lower() not in plain, f"{secret} in {where}"

    def close(self) -> None:
        super().close()
        self.stick.close()


@pytest.fixture(scope="module")
def talkative(
    tmp_path_factory: pytest.TempPathFactory, mongo_server: stack.Mongo | None, mysql_admin_url: str
) -> Iterator[Talkative]:
    db = Db(mysql_admin_url)
    built = Talkative(tmp_path_factory.mktemp("talkative"), mongo_server, db)
    try:
        built.broker.start()
        for store in (built.recorder, built.writer):
            store.start()
            built.wait_for_log(store, "connected to the broker")
        yield built
    finally:
        built.close()
        db.drop()


INFO = device_info()
METER_INFO = fragment(
    "MeterInfo",
    {"DeviceMacId": "0xd8d5b90000001234", "MeterMacId": "0x0013500100abcdef", "Auth": AUTH},
)
TOLD = [
    INFO,
    INFO.replace(b"0xd8d5b90000001234", b"0xbad"),  # refused, and so a dead letter
    INFO.replace(b"</InstallCode>", b"</InstallCod>"),
    INFO.replace(b"<LinkKey>", b"<LinkKe>"),
    INFO.replace(b"<InstallCode>", b""),
    INFO.replace(b"<LinkKey>", b"<Link\0Key>"),
    INFO.replace(b"LinkKey", b"LINKKEY").replace(b"<FWVersion>", b"<FWVersion><FWVersion>"),
    INFO.replace(b"DeviceInfo", b"DeviceInf0"),  # a kind that nobody knows
    METER_INFO.replace(b"0x0013500100abcdef", b"0xbad"),
    METER_INFO.replace(b"</Auth>", b"</Aut>"),
    METER_INFO.replace(b"<Auth>", b"<AUTH >"),
]


def test_what_the_stick_tells_of_the_network_stays_in_the_reader(talkative: Talkative):
    """Logs, metrics, health, every topic and both stores hold no key, whole or damaged."""
    bus = talkative.watch("raven/v1/#", "homeassistant/#")
    for process in (talkative.reader, talkative.relay):
        process.start()
        talkative.wait_for_log(process, "connected to the broker")
    talkative.stick.send(b"".join(TOLD) + demand())
    letters = wait_until(
        lambda: list(talkative.db["dead_letter"].find({"service": "reader"})),
        "a dead letter of the reader is stored",
    )
    wait_until(talkative.db["instantaneous_demand"].find_one, "the demand is stored")
    query = "SELECT relayed FROM instantaneous_demand"
    wait_until(lambda: talkative.sql(query) == ((1,),), "and relayed from the other store")
    assert any(b"<DeviceInfo>" in letter["payload"] for letter in letters)

    for name in talkative.db.list_collection_names():
        documents = [*talkative.db[name].find()]
        talkative.require_silence(str(documents), f"MongoDB's {name}")
    for (table,) in talkative.sql("SHOW TABLES"):
        rows = talkative.sql(f"SELECT * FROM {table}")  # noqa: S608 - its own answer
        talkative.require_silence(str(rows), f"MySQL's {table}")
    seen = list(bus.messages())
    assert {"raw", "status", "run", "dead"} <= {message.topic.split("/")[-1] for message in seen}
    for message in seen:
        said = message.payload.decode()
        if "dead" in message.topic.split("/"):
            said += base64.b64decode(json.loads(said)["payload"]).decode("cp1252", "replace")
        talkative.require_silence(said, message.topic)
    spool = talkative.folder / f"state-{NODE}" / "spool.sqlite"
    for file in spool.parent.glob("spool.sqlite*"):
        talkative.require_silence(file.read_bytes().decode("latin-1"), file.name)


def test_what_a_service_shows_of_itself_has_no_password(talkative: Talkative):
    """Debug log, metrics, health file, command line; its environment is its user's and root's."""
    for service in talkative.services:
        if not service.running:
            service.start()
            talkative.wait_for_log(service, "connected to the broker")
        wait_until(Path(service.env["RAVEN_HEALTH_FILE"]).exists, "the health file is there")
        with urlopen(f"http://127.0.0.1:{talkative.ports[service.name]}/metrics") as answer:
            talkative.require_silence(answer.read().decode(), "metrics")
        talkative.require_silence(Path(service.env["RAVEN_HEALTH_FILE"]).read_text(), "health")
        process = Path(f"/proc/{service.pid}")
        talkative.require_silence((process / "cmdline").read_text(), "the list of processes")
        assert (process / "environ").stat().st_mode & 0o077 == 0
        talkative.require_silence(service.text(), service.name)


BROKEN = """
from ravenbus.health import Health
def beat(self):
    raise RuntimeError("unexpected")
Health.beat = beat
"""


@pytest.mark.parametrize("end", ["SIGABRT", "an exception"])
def test_an_end_that_nobody_expected_says_no_password(
    talkative: Talkative, tmp_path: Path, end: str
):
    """A crash prints where it was, never what it held."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    before = {service.name: len(service.text()) for service in talkative.services}
    for service in talkative.services:
        service.stop()
        service.env |= {"PYTHONPATH": "" if end == "SIGABRT" else str(tmp_path)}
        service.start()
    for service in talkative.services:
        if end == "SIGABRT":
            wait_until(
                lambda s=service: "connected to the broker" in s.text()[before[s.name] :],
                f"{service.name} is connected",
            )
            service.send(signal.SIGABRT)
            assert service.wait() == -signal.SIGABRT
        else:
            assert service.wait() == 1
            assert "RuntimeError: unexpected" in service.text()[before[service.name] :]
        talkative.require_silence(service.text(), service.name)


WRONG_URLS = [
    "http://me:{0}@host/x?{0}",
    "mqtt://me:{0}@host:99999",
    "mongodb://me:{0}@host:99999/?{0}",
    "mysql://me:{0}@/{0}",
    "{0}",
    "mysql://me:{0}@host/db?ssl_ca=",
    "mongodb://me:{0}@host/?authMechanism={0}",
    "mqtts://me:{0}@[::1",
]


@pytest.mark.parametrize("url", WRONG_URLS)
@pytest.mark.parametrize("settings", SERVICES.values(), ids=SERVICES)
def test_a_wrong_url_is_named_and_not_shown(settings: type[Settings], url: str):
    """What may hold a password is never repeated, nor any part of it."""
    with pytest.raises(SettingsError) as caught:
        settings.load(dict.fromkeys(URLS, url.format(SECRET)))
    assert "_URL: " in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["{}://me:hunter2@host/db", "wrong://me:hunter2@host/db"])
@pytest.mark.parametrize("service", SERVICES)
def test_checking_the_settings_shows_no_password(service: str, url: str, tmp_path: Path):
    """--check-config says whether they can be used, and nothing of them."""
    schemes = {name: "mqtt" if "MQTT" in name else name[:-4].lower() for name in URLS}
    env = {name: url.format(scheme).removesuffix("/db") for name, scheme in schemes.items()}
    env |= {"MYSQL_URL": url.format("mysql"), "MONGO_URL": url.format("mongodb")}
    command = [str(stack.BIN / service), "--check-config"]
    env |= {"RAVEN_STATE": str(tmp_path), "RAVEN_DASHBOARD_PASSWORD": 2 * SECRET}
    process = stack.Process("check", command, tmp_path, env)
    process.start()
    assert process.wait() == (78 if "wrong" in url else 0), process.text()
    assert SECRET not in process.text()
