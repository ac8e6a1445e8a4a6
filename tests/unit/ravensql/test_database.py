"""What each error of the driver means, and where a database is; no sockets."""

from __future__ import annotations

import pytest
from pymysql import err

from raven_sql_writer.settings import WriterSettings
from ravenbus.errors import PoisonError, RetryableError, SettingsError
from ravensql.database import sorted_errors
from ravensql.settings import MysqlUrl
from tests.mysql import from_server

URL = MysqlUrl("mysql://raven:hunter2@db:3307/energy")


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (err.OperationalError(2003, "Can't connect"), RetryableError, "MySQL is away"),
        (err.OperationalError(2006, "gone away"), RetryableError, "MySQL is away"),
        (err.OperationalError(2013, "Lost connection"), RetryableError, "MySQL is away"),
        (err.InterfaceError(0, ""), RetryableError, "MySQL is away"),
        (from_server(1040), RetryableError, "MySQL is away"),
        (from_server(1053), RetryableError, "MySQL is away"),
        (from_server(1205), RetryableError, "MySQL is locked"),
        (from_server(1213), RetryableError, "MySQL is locked"),
        (from_server(1290), RetryableError, "MySQL is read-only"),
        (from_server(1836), RetryableError, "MySQL is read-only"),
        (from_server(1021), RetryableError, "disk is full"),
        (from_server(1114), RetryableError, "disk is full"),
        (from_server(28), RetryableError, "disk is full"),
        (from_server(1045), RetryableError, "see MYSQL_URL"),
        (from_server(1044), RetryableError, "see MYSQL_URL"),
        (from_server(1049), RetryableError, "see MYSQL_URL"),
        (from_server(1142), RetryableError, "see MYSQL_URL"),
        (from_server(1146), RetryableError, "not as they were made"),
        (from_server(1054), RetryableError, "not as they were made"),
        (from_server(1264), PoisonError, "not-storable"),
        (from_server(1292), PoisonError, "not-storable"),
        (from_server(1366), PoisonError, "not-storable"),
        (from_server(1406), PoisonError, "not-storable"),
        (from_server(1048), PoisonError, "not-storable"),
        (from_server(1062), PoisonError, "not-storable"),
        (from_server(1153), PoisonError, "not-storable"),
        (from_server(1690), PoisonError, "not-storable"),
        (from_server(3819), PoisonError, "not-storable"),
        (from_server(4025), PoisonError, "not-storable"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), PoisonError, "not-storable"),
    ],
    ids=lambda value: str(value.args[0]) if isinstance(value, Exception) else None,
)
def test_each_error_of_the_driver_is_retried_or_blamed_on_the_message(error, expected, said):
    """What the server suffers from is retried; what the row is guilty of is poison."""
    with pytest.raises(expected, match=said) as caught, sorted_errors(URL):
        raise error
    assert caught.value.__cause__ is error


def test_a_refused_account_is_said_without_its_password():
    """The text names the variable, the account and the server."""
    with pytest.raises(RetryableError) as caught, sorted_errors(URL):
        raise from_server(1045, "Access denied for user 'raven'@'h' (using password: YES)")
    assert "mysql://raven@db:3307/energy" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_url_is_read():
    """User and password are percent-encoded; the port has its default."""
    url = MysqlUrl("mysql://us%40er:p%2Fw@[::1]/energy?ssl_ca=/ca.pem")
    assert (url.user, url.password, url.host, url.port) == ("us@er", "p/w", "::1", 3306)
    assert (url.database, url.ssl_ca) == ("energy", "/ca.pem")
    assert MysqlUrl("mysql://u@h:3307/d").ssl_ca is None


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h",
        "mysql://u:hunter2@h/",
        "mysql://u:hunter2@h/a/b",
        "mysql://u:hunter2@h:0/d",
        "mysql://u:hunter2@h:x/d",
        "mysql://u:hunter2@h/d?ssl=1",
        "mysql://u:hunter2@h/d?ssl_ca=",
        "mysql://u:hunter2@h/d#f",
        "mysql://:hunter2@h/d",
        "postgres://u:hunter2@h/d",
        "hunter2",
    ],
)
def test_a_wrong_url_is_refused_without_showing_it(url):
    """A URL may hold a password, so the message says only what is allowed."""
    with pytest.raises(SettingsError) as caught:
        WriterSettings.load({"MYSQL_URL": url})
    (problem,) = caught.value.problems
    assert problem.startswith("MYSQL_URL")
    assert "mysql://user[:password]@host[:3306]/database" in problem
    assert "hunter2" not in problem


def test_the_url_comes_from_a_file_too(tmp_path):
    """MYSQL_URL_FILE names it, and certificates that are not there stop the start."""
    file = tmp_path / "url"
    file.write_text("mysql://u:hunter2@h/d?ssl_ca=/nowhere.pem\n")
    with pytest.raises(SettingsError, match="MYSQL_URL: the file that ssl_ca names") as caught:
        WriterSettings.load({"MYSQL_URL_FILE": str(file)})
    assert "hunter2" not in str(caught.value)
    file.write_text("mysql://u:hunter2@h/d\n")
    settings = WriterSettings.load({"MYSQL_URL_FILE": str(file)})
    assert settings.mysql_url.password == "hunter2"  # noqa: S105 - an example
    assert "hunter2" not in repr(settings)
