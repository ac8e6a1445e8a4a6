"""A real Home Assistant of the test's own, in the system that ``fetch.sh`` made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from playwright.sync_api import Browser, Page

from raven_harness import stack
from raven_harness.stack import wait_until

ROOT: Final = stack.ROOT / ".brokers" / "homeassistant"
SCREENSHOTS: Final = stack.ROOT / ".screenshots"
START_S: Final = 300.0
"""The first start makes its database and compiles what it imports."""
_CALL: Final = """
({url, token, message}) => new Promise((done, failed) => {
  const socket = new WebSocket(url);
  socket.onerror = () => failed(new Error("no connection"));
  socket.onmessage = ({data}) => {
    const said = JSON.parse(data);
    const answer = {auth_required: {type: "auth", access_token: token}, auth_ok: {id: 1, ...message}};
    if (answer[said.type]) return socket.send(JSON.stringify(answer[said.type]));
    socket.close();
    said.success ? done(said.result) : failed(new Error(data));
  };
})
"""
CONFIGURATION: Final = """
homeassistant:
  time_zone: UTC
  currency: USD
  country: US
  unit_system: metric
frontend:
config:
recorder:
  commit_interval: 1
history:
logbook:
energy:
logger:
  default: warning
"""


class HomeAssistant(stack.Server):
    """Home Assistant with an owner, whose API and whose pages can be used once it is set up."""

    def __init__(self, folder: Path) -> None:
        port = stack.free_port()
        config = folder / "homeassistant"
        config.mkdir()
        (config / "configuration.yaml").write_text(CONFIGURATION)
        root, here = shlex.quote(str(ROOT)), shlex.quote(str(config))
        # The mounts are this process's alone, and gone with it.
        script = (
            f"mkdir -p {root}/config && mount --bind {here} {root}/config && "
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"exec chroot {root} /srv/venv/bin/hass --config /config --skip-pip"
        )
        command = ["unshare", "--mount", "sh", "-c", script]
        super().__init__("homeassistant", command, folder, port)
        # A port in the configuration is on trial for five minutes.
        self.env = {"SETUP_PORT": str(port)}
        self.address = f"http://127.0.0.1:{port}"
        self._tokens: dict[str, Any] = {}
        self._page: Page | None = None
        self._other: Page

    def start(self) -> None:
        """Start it and return once it answers."""
        super().start()
        wait_until(self._answers, "Home Assistant answers", START_S)

    def set_up(self, browser: Browser) -> None:
        """Make the owner, and open its pages."""
        client = f"{self.address}/"
        owner = {"name": "Owner", "username": "owner", "password": "owner", "language": "en"}
        code = self._post("/api/onboarding/users", json={**owner, "client_id": client})
        grant = {"grant_type": "authorization_code", "code": code["auth_code"]}
        self._tokens = self._post("/auth/token", data={**grant, "client_id": client})
        for step in ("core_config", "analytics"):
            self._post(f"/api/onboarding/{step}", json={})
        urls = {"client_id": client, "redirect_uri": client}
        self._post("/api/onboarding/integration", json=urls)
        tokens = {**self._tokens, "hassUrl": self.address, "clientId": client, "expires": 2**43}
        context = browser.new_context(viewport={"width": 800, "height": 900})
        context.add_init_script(f"localStorage.hassTokens = {json.dumps(json.dumps(tokens))}")
        self._page = context.new_page()
        self._other = browser.new_page()

    def connect(self, mqtt_url: str) -> None:
        """Add the broker as a person does."""
        url = urlsplit(mqtt_url)
        flow = self._post("/api/config/config_entries/flow", json={"handler": "mqtt"})
        broker = {
            "broker": url.hostname,
            "port": url.port,
            "username": url.username,
            "password": url.password,
            "other_settings": {"set_client_cert": False, "set_ca_cert": "off"},
        }
        flow_id = flow["flow_id"]
        done = self._post(f"/api/config/config_entries/flow/{flow_id}", json=broker)
        if done["type"] != "create_entry":
            raise RuntimeError(f"the broker is not accepted: {done}")

    @property
    def page(self) -> Page:
        """The owner's browser."""
        if self._page is None:
            raise RuntimeError("it is not set up")
        return self._page

    def open(self, path: str) -> None:
        """Have the browser open a page."""
        self.page.goto(self.address + path)
        self.page.wait_for_function("document.querySelector('home-assistant')?.hass?.connected")

    def picture(self, path: str, shows: str, name: str) -> None:
        """Take a picture of a page once it shows some text."""
        self.open(path)
        self.page.get_by_text(shows).first.wait_for()
        self.page.wait_for_load_state("networkidle")
        self.page.screenshot(path=SCREENSHOTS / f"home-assistant-{name}.png")

    def call(self, **message: Any) -> Any:
        """Return the answer of the WebSocket API."""
        url = f"ws{self.address.removeprefix('http')}/api/websocket"
        token = self._tokens["access_token"]
        return self._other.evaluate(_CALL, {"url": url, "token": token, "message": message})

    def states(self) -> dict[str, Any]:
        """Return every state by its entity's id."""
        return {one["entity_id"]: one for one in self.get("/api/states")}

    def state(self, entity_id: str) -> str | None:
        """Return an entity's state, None for an entity that is not there."""
        found = self.states().get(entity_id)
        return found and found["state"]

    def wait_for(self, entity_id: str, true: Callable[[str | None], bool], what: str) -> str:
        """Return an entity's state once it is as it should be."""
        found = wait_until(
            lambda: [s for s in [self.state(entity_id)] if true(s)],
            f"{entity_id} is {what}; it is {self.state(entity_id)}",
        )
        return str(found[0])

    def entities(self) -> dict[str, Any]:
        """Return the entities of MQTT by the ids that they were given."""
        listed = self.call(type="config/entity_registry/list")
        return {one["unique_id"]: one for one in listed if one["platform"] == "mqtt"}

    def devices(self) -> list[Any]:
        """Return the devices that python-raven made."""
        listed = self.call(type="config/device_registry/list")
        return [one for one in listed if any(i[0] == "mqtt" for i in one["identifiers"])]

    def get(self, path: str) -> Any:
        """Return what the REST API answers."""
        answer = requests.get(self.address + path, headers=self._headers, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, **body: Any) -> Any:
        answer = requests.post(self.address + path, headers=self._headers, timeout=60, **body)
        if not answer.ok:
            raise RuntimeError(f"{path} is refused: {answer.text[:1000]}")
        return answer.json()

    @property
    def _headers(self) -> dict[str, str]:
        token = self._tokens.get("access_token")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"{self.name} does not start:\n{self.text()[-2000:]}")
        try:
            return requests.get(self.address + "/manifest.json", timeout=5).ok
        except requests.RequestException:
            return False
