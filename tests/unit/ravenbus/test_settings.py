"""Settings: all problems at once, secrets never shown, files for secrets."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from ravenbus import logs, service
from ravenbus.errors import SettingsError
from ravenbus.settings import MqttSettings, MqttUrl, unknown


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        MqttSettings.load(environ)
    return caught.value.problems


def test_every_problem_is_said_at_once():
    """Each line names the variable, what it held and what is allowed."""
    found = problems(
        {
            "RAVEN_LOG_LEVEL": "loud",
            "RAVEN_METRICS_PORT": "70000",
            "RAVEN_TOPIC_PREFIX": "a/#",
            "MQTT_TLS_KEY": "/nowhere/key.pem",
        }
    )
    assert [one.split(":")[0].split(" ")[0] for one in found] == [
        "RAVEN_LOG_LEVEL",
        "RAVEN_METRICS_PORT",
        "RAVEN_TOPIC_PREFIX",
        "MQTT_TLS_KEY",
    ]
    assert found[1] == (
        "RAVEN_METRICS_PORT: '70000' cannot be used: allowed is a whole number from 0 to 65535"
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:hunter2@h", "it does not begin with mqtt:// or mqtts://"),
        ("h", "it does not begin with mqtt:// or mqtts://"),
        ("mqtt://", "it has no host"),
        ("mqtt://u:hunter2@x@h", "that is not percent-encoded"),
        ("mqtt://h:0x1", "a port that is none"),
        ("mqtt://u:hunter2@h:99999", "a port that is none"),
        ("mqtt://h:0", "a port that is none"),
        ("mqtt://u:hunter2@h/topic", "it has a path"),
    ],
)
def test_a_wrong_url_is_refused_by_its_part_without_showing_it(url, reason):
    """A URL may hold a password, so the message says what is wrong with it and what is allowed."""
    (problem,) = problems({"MQTT_URL": url})
    assert problem.startswith("MQTT_URL: ")
    assert reason in problem
    assert "mqtts://[user:password@]host" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "\x9b2J", "\udcff", "$SYS", "/a", "x" * 10_000]
)
def test_an_odd_prefix_is_refused_in_a_line(text):
    """What a broker or a log could not take is a problem that one short line shows escaped."""
    (problem,) = problems({"RAVEN_TOPIC_PREFIX": text})
    assert problem.isprintable()
    assert len(problem) < 400
    assert "allowed is" in problem


def test_a_url_is_read_whole_and_prints_without_its_password():
    """Percent-encoding, default ports, TLS and IPv6 work; str() has no password."""
    url = MqttUrl("mqtts://me:p%40ss%3A@broker")
    assert (*url.addresses[0], url.tls, url.username, url.password) == (
        "broker",
        8883,
        True,
        "me",
        "p@ss:",
    )
    assert str(url) == repr(url) == "mqtts://me@broker:8883"
    assert MqttUrl("mqtt://[::1]:1884").addresses == (("::1", 1884),)


def test_a_cluster_has_several_addresses():
    """After commas, each with its port or the default; an empty one is refused."""
    url = MqttUrl("mqtts://me:pw@a,b:1883,[::1]")
    assert url.addresses == (("a", 8883), ("b", 1883), ("::1", 8883))
    assert str(url) == "mqtts://me@a:8883,b:1883,[::1]:8883"
    assert MqttUrl("mqtt://[::1],[::2]:1").addresses == (("::1", 1883), ("::2", 1))
    wrong = ("a,", ",a", "a,,b", "a:0,b", "a,b:x", "a, b", "u:hunter2@a,u:hunter2@b")
    for text in (*(f"mqtt://{one}" for one in wrong), "mqtt://u:12?hunter2@a", "mqtt://u:1#2@a"):
        with pytest.raises(ValueError, match="further hosts after commas"):
            MqttUrl(text)


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path):
    """NAME_FILE works for secrets; an unreadable file is a problem with its name."""
    secret = tmp_path / "url"
    secret.write_text("mqtt://me:pw@filed\n")
    assert MqttSettings.load({"MQTT_URL_FILE": str(secret)}).mqtt_url.addresses[0].host == "filed"
    (problem,) = problems({"MQTT_URL_FILE": str(tmp_path / "missing")})
    assert problem.startswith("MQTT_URL_FILE")


def test_an_empty_variable_counts_as_not_set():
    """Compose files pass empty variables for what is not set."""
    assert MqttSettings.load({"MQTT_URL": "", "RAVEN_LOG_LEVEL": ""}) == MqttSettings.load({})


def test_an_empty_file_counts_as_not_set(tmp_path: Path):
    """A container is always told where its secrets are; one that nobody gave is empty there."""
    secret = tmp_path / "url"
    secret.write_text("\n")
    assert (
        str(MqttSettings.load({"MQTT_URL_FILE": str(secret)}).mqtt_url) == "mqtt://localhost:1883"
    )


def test_a_certificate_that_does_not_match_its_key_stops_the_start(tmp_path: Path):
    """A wrong client certificate is an error at the start, not a log line."""
    for name in ("one", "two"):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        command += ["-nodes", "-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem"]
        subprocess.run([*command, "-subj", "/CN=x"], check=True, capture_output=True)
    environ = {"MQTT_URL": "mqtts://h", "MQTT_TLS_CERT": f"{tmp_path}/one.pem"}
    (problem,) = problems(environ | {"MQTT_TLS_KEY": f"{tmp_path}/two.key"})
    assert "MQTT_TLS_KEY" in problem
    assert MqttSettings.load(environ | {"MQTT_TLS_KEY": f"{tmp_path}/one.key"}).tls_context()


def test_a_name_that_no_service_has_is_told_with_the_nearest():
    """What begins like another program's counts only where it is nearly ours."""
    theirs = {"MYSQL_ROOT_PASSWORD": "x", "MONGO_INITDB_ROOT_USERNAME": "x", "MYSQL_PORT": "x"}
    theirs |= {"MYSQL_USER": "x", "MQTT_USER": "x", "MONGO_USER": "x"}
    ours = {"RAVEN_NODE": "x", "MYSQL_URL_FILE": "x", "RAVEN_SQL_KEEP_MONTHS": "3", "PATH": "x"}
    wrong = {"RAVEN_DEVCE": "x", "UPSTREAM_MQTT_ULR": "x", "RAVEN_IMAGE": "x"}
    assert list(unknown(theirs | ours)) == []
    assert list(unknown(theirs | ours | wrong)) == [
        "RAVEN_DEVCE is no setting: did you mean RAVEN_DEVICE?",
        "RAVEN_IMAGE is no setting of any service",
        "UPSTREAM_MQTT_ULR is no setting: did you mean UPSTREAM_MQTT_URL?",
    ]


def test_a_misspelt_name_is_an_error_of_a_check_and_a_warning_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    """Nobody finds out years later that a setting was never heard of; nobody's service ends of it."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setenv("MQTT_ULR", "mqtt://broker")
    said = "MQTT_ULR is no setting: did you mean MQTT_URL?"
    assert service.main("x", MqttSettings, lambda *_: None, check=True) == service.EXIT_SETTINGS
    assert said in capsys.readouterr().err
    assert service.main("x", MqttSettings, lambda *_: None, check=False) == 0
    assert said in caplog.messages
    monkeypatch.setenv("MQTT_URL", "wrong")
    assert service.main("x", MqttSettings, lambda *_: None, check=False) == service.EXIT_SETTINGS
    assert said in capsys.readouterr().err
