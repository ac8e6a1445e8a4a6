"""mongod, as far as compose and the entrypoint call it."""

import argparse
import os

parser = argparse.ArgumentParser()
parser.add_argument("--bind_ip", default="127.0.0.1")
parser.add_argument("--auth", action="store_true")
parser.add_argument("--wiredTigerCacheSizeGB", type=float, default=1)
parser.add_argument("--tlsMode", choices=["requireTLS"])
parser.add_argument("--tlsCertificateKeyFile")
# Nobody is asked for a certificate here, as with --tlsAllowConnectionsWithoutCertificates.
parser.add_argument("--tlsCAFile")
parser.add_argument("--tlsAllowConnectionsWithoutCertificates", action="store_true")
options = parser.parse_args()

command = ["/opt/mongo/bin/secantusd-py", "--host", options.bind_ip, "--port", "27017"]
command += ["--storage-path", "/data/db/wt", "--log-level", "WARNING", "--standalone"]
command += ["--sync-on-commit", "--cache-size", f"{options.wiredTigerCacheSizeGB * 1024:.0f}M"]
if pem := options.tlsCertificateKeyFile:
    command += ["--tls-cert-file", pem, "--tls-key-file", pem]
os.execv(command[0], command + ["--auth"] * options.auth)  # noqa: S606
