"""A proxy that mounts a dashboard under a path and shows it in a frame, as Home Assistant does."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

TRUSTED: Final = "127.0.0.2"
"""The address that the dashboards of these tests trust; browsers come from another."""
PATH: Final = "/api/hassio_ingress/t0k3n_Of-HA"
FRAME: Final = f"""<!doctype html><html lang="en"><head><title>Home</title>
<link rel="icon" href="data:,"></head><body>
<iframe src="{PATH}/" title="RAVEn" width="1000" height="700"></iframe></body></html>"""
OF_A_CONNECTION: Final = ("connection", "transfer-encoding", "content-length")


class Proxy:
    """Asks a dashboard from an address; whatever leaves its path is noted."""

    def __init__(self, port: int, source: str) -> None:
        strayed: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    self.send_response(200)
                    self.send_header("content-type", "text/html")
                    self.end_headers()
                    self.wfile.write(FRAME.encode())
                elif self.path.startswith(f"{PATH}/"):
                    with suppress(ConnectionError):  # a page that is left reads no further
                        self.pass_on()
                else:
                    strayed.append(self.path)
                    self.send_error(404)

            def do_POST(self) -> None:
                self.do_GET()

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {**self.headers, "X-Ingress-Path": PATH, "X-Forwarded-For": "192.0.2.1"}
                connection = http.client.HTTPConnection(
                    "127.0.0.1", port, source_address=(source, 0)
                )
                with closing(connection):
                    path = self.path.removeprefix(PATH)
                    connection.request(self.command, path, body or None, headers)
                    answer = connection.getresponse()
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name not in OF_A_CONNECTION:
                            self.send_header(name, value)
                    self.end_headers()
                    while piece := answer.read1():
                        self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                pass

        self.strayed = strayed
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
