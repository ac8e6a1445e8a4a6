"""Node-RED as a store: installed into `.peers`, and the flow that it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from raven_harness.stack import ROOT, Process
from ravenbus.settings import MqttUrl
from ravensql.settings import MysqlUrl
from store_peers import PLAIN, TIMES
from system import READINGS

PACKAGES: Final = Path(__file__).resolve().parent / "nodered" / "package.json"
VERSIONS: Final[dict[str, str]] = json.loads(PACKAGES.read_text())["dependencies"]
SESSION_S: Final = 3600
FLUSH_AFTER_S: Final = 1

Node = dict[str, Any]

_MADE: Final = ROOT / ".peers" / "nodered"
_IN_FLOW: Final[Node] = {"z": "flow", "x": 0, "y": 0}

READY: Final = """return msg.status.text === "connected" ? { action: "connect" } : null;"""

SETTINGS: Final = """\
module.exports = {
  httpAdminRoot: false, httpNodeRoot: false, credentialSecret: false, flowFile: "flows.json",
};
"""

TABLES: Final = """\
const columns = %(columns)s;
const times = %(times)s;
const tables = {};
for (const reading of [].concat(msg.payload)) {
  const row = { ...reading };
  for (const name of times) if (row[name]) row[name] = row[name].slice(0, -1);
  row.device_time = row.time;
  row.time = row.time || row.received;
  const table = reading.kind in columns ? reading.kind : "notification";
  if (table === "notification") row.body = JSON.stringify(reading);
  (tables[table] ||= []).push(columns[table].map((name) => row[name]));
}
return [Object.entries(tables).map(([table, rows]) => (
  { topic: `INSERT INTO ${table} (${columns[table]}) VALUES ?`, payload: [rows] }))];
"""

DOCUMENTS: Final = """\
const times = %(times)s;
const kinds = {};
for (const reading of [].concat(msg.payload)) {
  for (const name of times) if (reading[name]) reading[name] = new Date(reading[name]);
  (kinds[reading.kind] ||= []).push(reading);
}
return [Object.entries(kinds).map(([collection, found]) => (
  { collection, payload: [found, { ordered: false }] }))];
"""


def install() -> None:
    """Install what package.json names, unless it is there; raise FileNotFoundError without Node."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise FileNotFoundError(
                f"{program} is not installed: Debian's packages nodejs and npm, 18.5 or newer"
            )
    stamp, wanted = _MADE / "installed.json", PACKAGES.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(_MADE, ignore_errors=True)
        _MADE.mkdir(parents=True)
        shutil.copy(PACKAGES, _MADE)
        quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(["npm", "install", *quiet], cwd=_MADE, check=True)
        stamp.write_text(wanted)


def tables(batch: int, folder: Path, url: str, session: str, store_url: str) -> Process:
    """Return one that inserts rows, so many in a statement.

    It goes to the broker when it has the database: the node throws away what comes before that.
    """
    place = MysqlUrl(store_url)
    host, port = place.addresses[0]
    flow = [
        *_flow(batch, TABLES % {"columns": json.dumps(PLAIN), "times": json.dumps(TIMES)}),
        {**_IN_FLOW, "id": "put", "type": "mysql", "mydb": "store", "wires": [[]]},
        {**_IN_FLOW, "id": "status", "type": "status", "scope": ["put"], "wires": [["ready"]]},
        {**_IN_FLOW, "id": "ready", "type": "function", "func": READY, "wires": [["connect"]]},
        {**_IN_FLOW, "id": "connect", "type": "mqtt out", "broker": "broker", "wires": []},
        {"id": "store", "type": "MySQLdatabase", "host": host, "port": port, "db": place.database},
    ]
    accounts = {"store": {"user": place.user, "password": place.password}}
    return _process(folder, url, session, flow, accounts, connect=False)


def documents(batch: int, folder: Path, url: str, session: str, store_url: str) -> Process:
    """Return one that inserts documents, so many in a command."""
    put = {"type": "mongodb4", "clientNode": "store", "mode": "collection", "wires": [[]]}
    server = {"type": "mongodb4-client", "uriTabActive": "tab-uri-advanced", "uri": store_url}
    flow = [
        *_flow(batch, DOCUMENTS % {"times": json.dumps(TIMES)}),
        {**_IN_FLOW, "id": "put", "operation": "insertMany", **put},
        {"id": "store", "dbName": store_url.rpartition("/")[2], **server},
    ]
    return _process(folder, url, session, flow, {}, connect=True)


def _flow(batch: int, function: str) -> list[Node]:
    """Return the nodes from the broker to the one that puts."""
    source = {"type": "mqtt in", "topic": READINGS, "qos": "1", "datatype": "json"}
    join = {"type": "join", "mode": "custom", "build": "array", "timeout": str(FLUSH_AFTER_S)}
    first = "batch" if batch > 1 else "make"
    return [
        {"id": "flow", "type": "tab"},
        {**_IN_FLOW, "id": "from", "broker": "broker", **source, "wires": [[first]]},
        {**_IN_FLOW, "id": "batch", "count": str(batch), **join, "wires": [["make"]]},
        {**_IN_FLOW, "id": "make", "type": "function", "func": function, "wires": [["put"]]},
    ]


def _process(
    folder: Path,
    url: str,
    session: str,
    flow: list[Node],
    accounts: dict[str, dict[str, str]],
    *,
    connect: bool,
) -> Process:
    """Return a flow's process, which keeps its session and subscription when it ends."""
    place = MqttUrl(url)
    host, port = place.addresses[0]
    kept = {"cleansession": False, "autoUnsubscribe": False, "sessionExpiry": str(SESSION_S)}
    broker = {"id": "broker", "type": "mqtt-broker", "broker": host, "port": port, **kept}
    broker |= {"clientid": session, "protocolVersion": "5", "autoConnect": connect}
    accounts["broker"] = {"user": place.username or "", "password": place.password or ""}
    made = folder / f"{session}-{uuid4()}"
    made.mkdir()
    (made / "settings.js").write_text(SETTINGS)
    (made / "flows.json").write_text(json.dumps([*flow, broker]))
    (made / "flows_cred.json").write_text(json.dumps(accounts))
    program = _MADE / "node_modules" / "node-red" / "red.js"
    command = ["node", str(program), "--userDir", str(made)]
    return Process(session, command, made, {"HOME": str(made)})
